"""The tokenizer and the text files of a GGUF file: token for token those of the tokenizer.json that it is made of."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from intaglio.errors import CheckpointError, UnsupportedError
from intaglio.files.tokenizer_file import read_tokenizer
from intaglio.models.checkpoint import Checkpoint
from tokenizers import Tokenizer

from . import make

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
TEXTS = (
    "",
    " ",
    "The seal presses the same impression, every time.",
    "I'll say it's what they'd've done: DON'T",
    "1234567890 3.14 ١٢٣ ½ x² H₂O",
    "tabs\tand\r\nline\n\n\nends   \n  and spaces   ",
    "Ünïcödé, e\u0301 composed and decomposed \u00e9, ﬁ ligature, Ａ wide",
    "한국어 문장입니다. 日本語の文。 中文句子。 العربية עברית ไทย हिन्दी",
    "emoji 🙂👩‍👩‍👧‍👦🇰🇷 and \u200b\u00a0\ufeff invisible",
    "def f(x):\n    return x**2  # comment\n",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>[|user|]x[|endofturn|][PAD][BOS]<think>\n</think>",
    "a" * 300 + " " * 70 + "!?" * 40,
)


def from_checkpoint(name: str, path: Path, **metadata: Any) -> Checkpoint:
    """Return a GGUF file with the tokenizer of a tiny trained checkpoint."""
    source = CHECKPOINTS / name
    given = json.loads((source / "config.json").read_text(encoding="utf-8"))
    ids = {key: given.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    values = make.config(given["model_type"], **{**ids, "vocab_size": given["vocab_size"] + 5})
    data = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    template = (source / "chat_template.jinja").read_text(encoding="utf-8")
    facts = make.tokenizer_metadata(data, values, template)
    return Checkpoint(make.write(path, values, tokenizer=False, metadata={**facts, **metadata}))


@pytest.mark.parametrize("name", ["tiny-qwen2", "tiny-exaone4"])
def test_texts_have_the_tokens_of_the_checkpoint(name: str, tmp_path: Path) -> None:
    checkpoint = from_checkpoint(name, tmp_path / "tiny.gguf")
    found = read_tokenizer(checkpoint.folder)
    expected = read_tokenizer(CHECKPOINTS / name)
    assert found is not None
    assert expected is not None
    for text in TEXTS:
        ids = expected.encode(text).ids
        assert found.encode(text).ids == ids, text
        assert found.decode(ids, skip_special_tokens=False) == expected.decode(ids, skip_special_tokens=False)
        assert found.decode(ids) == expected.decode(ids)
    assert found.get_vocab() == expected.get_vocab()


@pytest.mark.parametrize("name", ["tiny-qwen2", "tiny-exaone4"])
def test_text_files_are_those_of_the_checkpoint(name: str, tmp_path: Path) -> None:
    checkpoint, source = from_checkpoint(name, tmp_path / "tiny.gguf"), CHECKPOINTS / name
    found = checkpoint.folder
    assert (found / "chat_template.jinja").read_bytes() == (source / "chat_template.jinja").read_bytes()
    settings = json.loads((found / "generation_config.json").read_text())
    expected = json.loads((source / "generation_config.json").read_text())
    assert set(settings["eos_token_id"]) >= set(expected["eos_token_id"])
    names = json.loads((found / "tokenizer_config.json").read_text())
    given = json.loads((source / "tokenizer_config.json").read_text())
    if name == "tiny-exaone4":
        assert names["bos_token"] == given["bos_token"]
    assert names["eos_token"] == ("<|im_end|>" if name == "tiny-qwen2" else "[|endofturn|]")


@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
def test_tokens_around_a_text(family: str, tmp_path: Path) -> None:
    both = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}
    checkpoint = Checkpoint(make.write(tmp_path / "tiny.gguf", make.config(family), metadata=both))
    tokenizer = read_tokenizer(checkpoint.folder)
    assert tokenizer is not None
    inner = tokenizer.encode("seal", add_special_tokens=False).ids
    assert tokenizer.encode("seal").ids == [1, *inner, 2]
    assert tokenizer.encode("seal", "seal").ids == [1, *inner, 2, 1, *inner, 2]


def test_a_pre_tokenizer_without_a_name_is_the_familys(tmp_path: Path) -> None:
    found = from_checkpoint("tiny-qwen2", tmp_path / "tiny.gguf", **{"tokenizer.ggml.pre": "default"})
    assert found.notes == ("tokenizer.ggml.pre does not name a pre-tokenizer: that of qwen2 is taken",)
    tokenizer, expected = read_tokenizer(found.folder), read_tokenizer(CHECKPOINTS / "tiny-qwen2")
    assert tokenizer is not None
    assert expected is not None
    assert all(tokenizer.encode(text).ids == expected.encode(text).ids for text in TEXTS)


def test_several_chat_templates(tmp_path: Path) -> None:
    metadata = {"tokenizer.chat_template.tool_use": "{{ tools }}", "tokenizer.chat_templates": ["tool_use"]}
    checkpoint = from_checkpoint("tiny-qwen2", tmp_path / "tiny.gguf", **metadata)
    assert (checkpoint.folder / "additional_chat_templates" / "tool_use.jinja").read_text() == "{{ tools }}"


def test_recommended_sampling(tmp_path: Path) -> None:
    metadata = {"general.sampling.temp": 0.7, "general.sampling.top_k": 20, "general.sampling.penalty_repeat": 1.05}
    checkpoint = from_checkpoint("tiny-qwen2", tmp_path / "tiny.gguf", **metadata)
    settings = json.loads((checkpoint.folder / "generation_config.json").read_text())
    assert settings == {
        "bos_token_id": 4096,
        "eos_token_id": [4098, 4096],
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 20,
        "repetition_penalty": 1.05,
    }


def test_a_file_without_a_tokenizer(tmp_path: Path) -> None:
    found = Checkpoint(make.write(tmp_path / "tiny.gguf", make.config("qwen2"), tokenizer=False))
    assert found.notes == ("the file has no tokenizer",)
    assert read_tokenizer(found.folder) is None


def test_licence_and_languages(tmp_path: Path) -> None:
    from intaglio.exporter.companions.source_card import read_source_card

    metadata = {"general.license": "apache-2.0", "general.languages": ["en", "ko"], "general.license.link": 'a: "b"'}
    checkpoint = from_checkpoint("tiny-qwen2", tmp_path / "tiny.gguf", **metadata)
    card = read_source_card(checkpoint.folder)
    assert card is not None
    assert (card.license, card.languages, card.license_link) == ("apache-2.0", ("en", "ko"), 'a: "b"')


KEY = "tokenizer.ggml"
TOKENS = ["a", "b", "ab", "<x>"]
SMALL = {f"{KEY}.tokens": TOKENS, f"{KEY}.token_type": [1, 1, 1, 3], f"{KEY}.merges": ["a b"]}
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "another model": (
        {f"{KEY}.model": "llama"},
        UnsupportedError,
        r"model is 'llama', and only gpt2 \(byte-level BPE\)",
    ),
    "another pre-tokenizer": (
        {f"{KEY}.pre": "llama-bpe"},
        UnsupportedError,
        r"pre is 'llama-bpe', a pre-tokenizer that is not known; known are qwen2, deepseek-r1-qwen, exaone4, gpt-2",
    ),
    "an unknown key": (
        {f"{KEY}.add_magic_token": True},
        UnsupportedError,
        r"metadata that may change how text is read, and is not known: tokenizer\.ggml\.add_magic_token",
    ),
    "no tokens": ({f"{KEY}.tokens": None}, CheckpointError, r"tokens is missing, expected a list of texts; fetch"),
    "no types": (
        {f"{KEY}.token_type": None},
        CheckpointError,
        r"token_type is missing, expected a list of whole numbers",
    ),
    "too few types": (
        {f"{KEY}.token_type": [1]},
        CheckpointError,
        r"token_type is not a list of 4 whole numbers, one for",
    ),
    "types of no kind": (
        {f"{KEY}.token_type": [1, 1, 1, 9]},
        CheckpointError,
        "has types beyond 1 to 6; fetch the file",
    ),
    "a token twice": (
        {f"{KEY}.tokens": ["a", "b", "ab", "a"]},
        CheckpointError,
        r"tokens has 'a' twice; fetch the file",
    ),
    "no merges": ({f"{KEY}.merges": None}, CheckpointError, r"merges is missing, expected a list of texts"),
    "a merge of one": (
        {f"{KEY}.merges": ["ab"]},
        CheckpointError,
        r"merges has 'ab', expected two tokens; fetch the file",
    ),
    "a merge of no tokens": (
        {f"{KEY}.merges": ["a c"]},
        CheckpointError,
        r"tiny\.gguf: its tokenizer is damaged \(.*\); fetch it again",
    ),
    "an end that is no token": (
        {f"{KEY}.eos_token_id": 9},
        CheckpointError,
        r"eos_token_id is 9, expected a whole number from 0 to 3; fetch the file again",
    ),
    "no token to add": (
        {f"{KEY}.add_bos_token": True, f"{KEY}.bos_token_id": None},
        CheckpointError,
        r"bos_token_id is missing, expected a token, since add_bos_token is true",
    ),
    "a template's name": (
        {"tokenizer.chat_template.../x": "{{ a }}"},
        CheckpointError,
        r"a chat template has the name '\.\./x'; rename it",
    ),
    "a template that is no text": (
        {"tokenizer.chat_template": 7},
        CheckpointError,
        r"chat_template is 7, expected a text",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_damaged_tokenizers_are_refused(name: str, tmp_path: Path) -> None:
    metadata, kind, message = BAD[name]
    plain = {f"{KEY}.eos_token_id": 3, f"{KEY}.bos_token_id": 3, f"{KEY}.padding_token_id": 3}
    values = make.config("qwen2")
    with pytest.raises(kind, match=message):
        Checkpoint(make.write(tmp_path / "tiny.gguf", values, metadata={**SMALL, **plain, **metadata}))


def test_the_tokenizer_of_transformers(tmp_path: Path) -> None:
    """transformers' own conversion of the same file (Qwen2 only) gives the same tokens, but for what NFC composes."""
    from transformers import AutoTokenizer

    found = from_checkpoint("tiny-qwen2", tmp_path / "tiny.gguf")
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    ours = Tokenizer.from_file(str(found.folder / "tokenizer.json"))
    for text in TEXTS:
        assert ours.encode(text).ids == theirs(unicodedata.normalize("NFC", text))["input_ids"], text
