"""The tokenizer against transformers' AutoTokenizer, and the settings of tokenizer files that change ids."""

import json
from pathlib import Path
from typing import Any

import pytest
from intaglio.errors import ArtifactError
from intaglio.runtime.text.tokenizer import load_tokenizer, try_tokenizer
from intaglio.tests import tiny_tokenizer
from tokenizers import Tokenizer as Backend
from tokenizers import normalizers, processors
from transformers import AutoTokenizer

TEXTS = ["Hello world", " Hello world", "é e\u0301 Å", "你好😀", "a\n\n b\t", "[|user|]\nThe stone", "1234 it's"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = {"model_type": "exaone4", "vocab_size": 300, "max_position_embeddings": 64}
    tiny_tokenizer.write(tmp_path, config)
    return tmp_path


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def equal_ids(folder: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = load_tokenizer(folder)
    for text in TEXTS:
        assert ours.encode(text) == theirs(text)["input_ids"], text
    pair = theirs("Where is it?", "In the seal.")["input_ids"]
    assert ours.backend.encode("Where is it?", "In the seal.").ids == pair


def test_ids_equal_transformers(folder: Path) -> None:
    equal_ids(folder)


def test_truncation_and_padding_of_the_file_are_switched_off(folder: Path) -> None:
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    plain = load_tokenizer(folder).encode("The engraver cuts a design")
    backend.enable_truncation(3)
    backend.enable_padding(length=16, pad_id=0)
    backend.save(str(folder / "tokenizer.json"))
    assert load_tokenizer(folder).encode("The engraver cuts a design") == plain
    assert load_tokenizer(folder).encode("a") == [load_tokenizer(folder).backend.token_to_id("a")]


@pytest.mark.parametrize("wanted", [False, True])
def test_the_template_of_tokenizer_json_takes_precedence_over_the_configuration(folder: Path, wanted: bool) -> None:
    configure(folder, add_bos_token=wanted, add_eos_token=wanted)
    assert len(load_tokenizer(folder).encode("a")) == 1
    equal_ids(folder)
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.post_processor = processors.TemplateProcessing("[BOS] $A", "[BOS] $A [BOS] $B", [("[BOS]", 1)])
    backend.save(str(folder / "tokenizer.json"))
    assert load_tokenizer(folder).encode("a")[0] == 1
    equal_ids(folder)


def test_tokens_that_only_the_configuration_knows_are_added(folder: Path) -> None:
    size = load_tokenizer(folder).backend.get_vocab_size()
    entry = {"content": "<|new|>", "special": True, "normalized": False, "lstrip": False, "rstrip": True}
    plain = {"content": "engrave", "special": False, "single_word": True}
    configure(folder, added_tokens_decoder={str(size): entry, str(size + 1): plain}, unk_token="<|unk|>")
    TEXTS.extend(["a<|new|>  b", "engrave engraver", "<|unk|>"])
    try:
        equal_ids(folder)
        assert load_tokenizer(folder).encode("a<|new|>  b")[1] == size
        assert size + 1 in load_tokenizer(folder).encode("to engrave")
    finally:
        del TEXTS[-3:]


def test_special_tokens_in_text_may_be_read_as_text(folder: Path) -> None:
    configure(folder, split_special_tokens=True)
    assert 2 not in load_tokenizer(folder).encode("a[|endofturn|]")
    configure(folder, split_special_tokens=False)
    assert 2 in load_tokenizer(folder).encode("a[|endofturn|]")


@pytest.mark.parametrize("named", ["tokenizer_config", "config"])
def test_qwen2_composes_characters_where_a_converted_file_forgot_to(tmp_path: Path, named: str) -> None:
    tiny_tokenizer.write(tmp_path, {"model_type": "qwen2", "vocab_size": 300, "max_position_embeddings": 64})
    assert load_tokenizer(tmp_path).encode("e\u0301") != load_tokenizer(tmp_path).encode("é")
    if named == "config":
        (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    else:
        configure(tmp_path, tokenizer_class="Qwen2TokenizerFast")
    assert load_tokenizer(tmp_path).encode("e\u0301") == load_tokenizer(tmp_path).encode("é")
    backend = Backend.from_file(str(tmp_path / "tokenizer.json"))
    backend.normalizer = normalizers.NFD()
    backend.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).encode("é") != load_tokenizer(tmp_path).encode("e")
    assert len(load_tokenizer(tmp_path).encode("é")) == 3  # the file's own normalizer stays


def test_the_end_token_of_the_configuration(folder: Path) -> None:
    assert load_tokenizer(folder).eos_token_id == 2
    configure(folder, eos_token={"content": "[BOS]", "special": True})
    assert load_tokenizer(folder).eos_token_id == 1
    configure(folder, eos_token=None)
    assert load_tokenizer(folder).eos_token_id is None


def test_a_tokenizer_that_cannot_be_read(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json cannot be read .*; export the model again"):
        load_tokenizer(folder)
    (folder / "tokenizer.json").unlink()
    assert try_tokenizer(folder) is None
