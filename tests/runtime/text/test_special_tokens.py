"""Special tokens, however a folder declares them: ids, decoding and skipping against transformers' AutoTokenizer."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from intaglio.errors import ArtifactError
from intaglio.files.chat.template import read_chat_format
from intaglio.runtime.text.tokenizer import load_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
TEXTS = [
    "the stone is the theme",
    "a <|new|> b<|new|>",
    "<|im_start|>user\nHi<|im_end|>\n",
    "[|user|] x [BOS] y[EOS]",
    "<|a|>  <|b|> c <|z|><|q|>",
    "<mask> <|img|>\t<|aud|> <|i|>",
    "[CLS]a[SEP]",
    "engrave engraver tostone",
    "<|pad|><|e|><|endoftext|><|bos|> é e\u0301",
    "<unk> <|vv|> <|c|> <think>x</think>",
    " a  <|new|>  b <|ignored|>",
]


def entry(content: str, **flags: bool) -> dict[str, Any]:
    return {"content": content, **flags}


def typed(content: str, **flags: bool) -> dict[str, Any]:
    """Return a token as save_pretrained writes it."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"__type": "AddedToken", "content": content, **plain, **flags}


NOTHING = ("eos_token", "pad_token", "unk_token", "additional_special_tokens", "extra_special_tokens")
FLAGS = {"rstrip": False, "normalized": False, "single_word": False}
# tokenizer_config.json, special_tokens_map.json, added_tokens.json; the folder's own where there is None.
Declaration = tuple[dict[str, Any], dict[str, Any] | None, dict[str, int] | None]
DECLARATIONS: dict[str, Declaration] = {
    "as it is": ({}, None, None),
    "nothing": (dict.fromkeys(NOTHING), {}, None),
    "named tokens of the vocabulary": ({"eos_token": "Ġstone", "bos_token": "the"}, {}, None),
    "objects": (
        {"bos_token": typed("the", lstrip=True), "mask_token": typed("<mask>", rstrip=True, normalized=True)},
        {},
        None,
    ),
    "other names": ({"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "the"}, None, None),
    "additional": ({"additional_special_tokens": ["the", "<|a|>", typed("<|b|>", lstrip=True)]}, None, None),
    "extra list": (
        {
            "extra_special_tokens": ["the", "<|a|>", typed("<|b|>", special=False, normalized=True)],
            "additional_special_tokens": ["<|z|>"],
        },
        None,
        None,
    ),
    "extra object": (
        {"extra_special_tokens": {"image_token": "<|img|>", "x": "the"}, "additional_special_tokens": ["<|z|>"]},
        None,
        None,
    ),
    "names of the model": (
        {"image_token": "<|img|>", "audio_token": typed("<|aud|>", rstrip=True), "add_thing_token": True},
        None,
        None,
    ),
    "map": (
        {},
        {
            "eos_token": "the",
            "bos_token": entry("<|bos|>", lstrip=True, **FLAGS),
            "additional_special_tokens": ["<|q|>"],
            "image_token": "<|i|>",
        },
        None,
    ),
    "lists of the map": (
        {"additional_special_tokens": None, "image_token": "<|c|>"},
        {"additional_special_tokens": ["<|q|>", "the"], "image_token": "<|i|>"},
        None,
    ),
    "extra list of the map": (
        {"extra_special_tokens": ["<|a|>"]},
        {"extra_special_tokens": ["<|a|>", entry("<|b|>", lstrip=True)]},
        None,
    ),
    "extra object of the map": ({}, {"extra_special_tokens": {"v": "<|vv|>"}}, None),
    "added": ({}, None, {"<|new|>": 4201, "the": 4200, "stone": 4202}),
    "added and named": (
        {"eos_token": "<|new|>", "additional_special_tokens": ["stone"]},
        {},
        {"<|new|>": 4201, "the": 4200, "stone": 4202},
    ),
    "added with ids of the file": ({}, None, {"[|user|]": 4200, "<|new|>": 4097, "[EOS]": 4098}),
    "read as text": ({"split_special_tokens": True, "eos_token": "the"}, {}, None),
}
BY_ID: dict[str, Declaration] = {
    "by id": (
        {
            "added_tokens_decoder": {
                "5000": entry("<|new|>", special=True, lstrip=True),
                "4201": entry("engrave"),
                "4200": entry("the", normalized=False, single_word=True),
            }
        },
        None,
        None,
    ),
    "by id, and named": (
        {
            "added_tokens_decoder": {"4205": entry("<|pad|>"), "4204": entry("<|e|>", normalized=True)},
            "pad_token": "<|pad|>",
            "eos_token": "<|e|>",
            "additional_special_tokens": ["<|q|>"],
        },
        {"eos_token": "the"},
        {"<|ignored|>": 4206},
    ),
    "special in one file only": (
        {
            "added_tokens_decoder": {
                "4101": entry("[|user|]", special=False),
                "4098": entry("[EOS]", special=False, normalized=False),
                "4097": entry("[BOS]", special=False, lstrip=True),
            }
        },
        None,
        None,
    ),
}


def declare(name: str, folder: Path, declaration: Declaration, *, bare: bool = False) -> Path:
    """Copy a checkpoint's tokenizer with this declaration; ``bare`` takes the tokens of its own configuration away."""
    config, named, added = declaration
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(CHECKPOINTS / name / file, folder / file)
    path = folder / "tokenizer_config.json"
    own = json.loads(path.read_text())
    if bare:
        own = {key: value for key, value in own.items() if not key.endswith(("_token", "_tokens"))}
        (folder / "special_tokens_map.json").unlink()
    path.write_text(json.dumps(own | config))
    for file, content in (("special_tokens_map.json", named), ("added_tokens.json", added)):
        if content is not None:
            (folder / file).write_text(json.dumps(content))
    return folder


def compare(folder: Path, theirs: Any) -> None:
    """Check the added tokens, and for every text the ids and the text without special tokens."""
    ours = load_tokenizer(folder)
    added = {id: repr(token) for id, token in theirs.added_tokens_decoder.items()}
    assert {id: repr(token) for id, token in ours.backend.get_added_tokens_decoder().items()} == added
    assert ours.eos_token_id == theirs.eos_token_id
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == ids, text
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True), text
        assert ours.backend.decode(ids, skip_special_tokens=False) == theirs.decode(ids), text


@pytest.mark.parametrize("bare", [False, True], ids=["", "bare"])
@pytest.mark.parametrize("case", DECLARATIONS)
@pytest.mark.parametrize("checkpoint", ["tiny-qwen2", "tiny-exaone4"])
def test_every_declaration_equals_transformers(checkpoint: str, case: str, bare: bool, tmp_path: Path) -> None:
    folder = declare(checkpoint, tmp_path, DECLARATIONS[case], bare=bare)
    compare(folder, AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize("bare", [False, True], ids=["", "bare"])
@pytest.mark.parametrize("case", BY_ID)
def test_every_declaration_by_id_equals_transformers(case: str, bare: bool, tmp_path: Path) -> None:
    folder = declare("tiny-exaone4", tmp_path, BY_ID[case], bare=bare)
    compare(folder, AutoTokenizer.from_pretrained(folder))


def test_qwen2_keeps_the_ids_of_tokenizer_json_that_a_declaration_by_id_leaves_out(tmp_path: Path) -> None:
    """As PreTrainedTokenizerFast; transformers' Qwen2Tokenizer gives <|im_end|> another id here."""
    (config, named, added) = BY_ID["by id"]
    folder = declare("tiny-qwen2", tmp_path, (config, named, added))
    compare(folder, PreTrainedTokenizerFast.from_pretrained(folder))
    assert load_tokenizer(folder).encode("<|im_end|>") == [4098]


def test_qwen2_with_all_ids_equals_transformers(tmp_path: Path) -> None:
    own = json.loads((CHECKPOINTS / "tiny-qwen2/tokenizer.json").read_text())["added_tokens"]
    by_id = {str(token.pop("id")): token for token in own} | BY_ID["by id"][0]["added_tokens_decoder"]
    folder = declare("tiny-qwen2", tmp_path, ({"added_tokens_decoder": by_id}, None, None))
    compare(folder, AutoTokenizer.from_pretrained(folder))


def test_templates_see_the_named_tokens(tmp_path: Path) -> None:
    folder = declare("tiny-qwen2", tmp_path, DECLARATIONS["map"])
    theirs = AutoTokenizer.from_pretrained(folder).special_tokens_map
    assert read_chat_format(folder).special_tokens == theirs
    assert theirs["bos_token"] == "<|bos|>"
    assert theirs["image_token"] == "<|i|>"


def test_a_token_of_the_class_that_the_vocabulary_lacks_is_left_out(tmp_path: Path) -> None:
    folder = declare("tiny-exaone4", tmp_path, ({"tokenizer_class": "Qwen2Tokenizer"}, None, None), bare=True)
    assert load_tokenizer(folder).backend.token_to_id("<|endoftext|>") is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"eos_token": 5}, "eos_token is 5, expected a text or an object with content"),
        ({"pad_token": {"text": "a"}}, r"pad_token is \{'text': 'a'\}, expected a text or an object with content"),
        ({"bos_token": {"content": "a", "lstrip": 1}}, "bos_token: lstrip is 1, expected true or false"),
        ({"additional_special_tokens": "a"}, "additional_special_tokens is 'a', expected a list or an object"),
        ({"extra_special_tokens": ["a", 5]}, r"extra_special_tokens\[1\] is 5, expected a text"),
        ({"extra_special_tokens": {"x": []}}, r"extra_special_tokens\.x is \[\], expected a text"),
        ({"added_tokens_decoder": []}, r"added_tokens_decoder is \[\], expected an object with token ids as keys"),
        ({"added_tokens_decoder": {"-1": {}}}, ".*expected an object with token ids as keys"),
        ({"added_tokens_decoder": {"7": {}}}, r"added_tokens_decoder\.7 is \{\}, expected a text or an object"),
    ],
)
def test_declarations_of_another_form_are_named(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = declare("tiny-exaone4", tmp_path, (config, None, None))
    with pytest.raises(ArtifactError, match=rf"tokenizer_config\.json: {message}.*; export the model again"):
        load_tokenizer(folder)


def test_ids_of_another_form_are_named(tmp_path: Path) -> None:
    folder = declare("tiny-exaone4", tmp_path, ({}, None, {"a": True}))
    with pytest.raises(ArtifactError, match=r"added_tokens\.json: the id of 'a' is True, expected a whole number"):
        load_tokenizer(folder)
