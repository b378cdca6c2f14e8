"""A tokenizer built from vocab.json and merges.txt, against the one that transformers builds."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from intaglio.errors import ArtifactError, CheckpointError
from intaglio.exporter import export
from intaglio.files.tokenizer_file import missing_tokenizer, read_tokenizer
from intaglio.runtime import load
from intaglio.runtime.text.tokenizer import load_tokenizer, try_tokenizer
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
TEXTS = [
    "Hello world, it's the stone's theme; they'LL see.",
    "a\n\n b\t c  \r\n 1234567 9",
    "é e\u0301 Å 你好😀 \u00a0x",
    "<|im_start|>user\nHi<|im_end|>\n<|endoftext|>[BOS]a[EOS]",
    " leading and trailing ",
]


def vocabulary(name: str, folder: Path, **config: Any) -> Path:
    """Copy a checkpoint, with vocab.json and merges.txt for its tokenizer.json; ``config`` is tokenizer_config.json."""
    shutil.copytree(CHECKPOINTS / name, folder, dirs_exist_ok=True)
    whole = json.loads((folder / "tokenizer.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in whole["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    by_id = {str(token.pop("id")): token for token in whole["added_tokens"]}
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"added_tokens_decoder": by_id} | config))
    (folder / "tokenizer.json").unlink()
    return folder


CASES = [
    ("tiny-qwen2", {}),
    ("tiny-qwen2", {"tokenizer_class": None}),
    ("tiny-qwen2", {"add_prefix_space": True}),
    ("tiny-qwen2", {"add_bos_token": True, "bos_token": "<|im_start|>", "add_eos_token": True}),
    ("tiny-qwen2", {"add_bos_token": True}),
    ("tiny-exaone4", {"tokenizer_class": "GPT2Tokenizer"}),
    ("tiny-exaone4", {"tokenizer_class": "GPT2TokenizerFast", "add_bos_token": True, "add_prefix_space": True}),
    ("tiny-exaone4", {"tokenizer_class": "Qwen2Tokenizer"}),
]


@pytest.mark.parametrize(("checkpoint", "config"), CASES)
def test_the_built_tokenizer_equals_transformers(checkpoint: str, config: dict[str, Any], tmp_path: Path) -> None:
    folder = vocabulary(checkpoint, tmp_path, **config)
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = load_tokenizer(folder)
    written = tmp_path / "written"
    shutil.copytree(folder, written, ignore=shutil.ignore_patterns("vocab.json", "merges.txt", "*.safetensors"))
    (written / "tokenizer.json").write_text(ours.backend.to_str())
    for tokenizer in (ours, load_tokenizer(written)):
        for text in TEXTS:
            ids = theirs(text)["input_ids"]
            assert tokenizer.encode(text) == ids, text
            assert tokenizer.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
        assert tokenizer.backend.encode(TEXTS[0], TEXTS[1]).ids == theirs(TEXTS[0], TEXTS[1])["input_ids"]


def test_the_built_tokenizer_equals_the_file(tmp_path: Path) -> None:
    whole = load_tokenizer(CHECKPOINTS / "tiny-qwen2")
    built = load_tokenizer(vocabulary("tiny-qwen2", tmp_path))
    assert [built.encode(text) for text in TEXTS] == [whole.encode(text) for text in TEXTS]


def test_an_export_writes_the_built_tokenizer(tmp_path: Path) -> None:
    source = vocabulary("tiny-qwen2", tmp_path / "source")
    manifest = export(source, tmp_path / "out")
    assert "tokenizer.json" in manifest.files
    whole = load_tokenizer(CHECKPOINTS / "tiny-qwen2")
    with load(tmp_path / "out", task="text-generation") as model:
        assert model.tokenizer is not None
        assert [model.tokenizer.encode(text) for text in TEXTS] == [whole.encode(text) for text in TEXTS]
        assert model.generate("The stone", max_new_tokens=3, temperature=0).token_ids
    assert Backend.from_file(str(tmp_path / "out" / "tokenizer.json")).encode("a").ids == whole.encode("a")


def test_a_damaged_tokenizer_is_refused_before_the_export(tmp_path: Path) -> None:
    source = vocabulary("tiny-qwen2", tmp_path / "source")
    (source / "merges.txt").write_text("a b c\n")
    with pytest.raises(
        CheckpointError, match=r"vocab\.json and merges\.txt cannot be read .*; fetch the checkpoint again"
    ):
        export(source, tmp_path / "out")
    (source / "merges.txt").write_text("no-such token\n")
    with pytest.raises(ArtifactError, match=r"vocab\.json and merges\.txt cannot be read .*out of vocabulary"):
        try_tokenizer(source)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_built_is_named(tmp_path: Path) -> None:
    source = vocabulary("tiny-exaone4", tmp_path)
    assert read_tokenizer(source) is None
    assert missing_tokenizer(source) == (
        "no tokenizer.json, and a PreTrainedTokenizer cannot be built from vocab.json and merges.txt "
        "(Qwen2Tokenizer and GPT2Tokenizer can)"
    )
    (source / "merges.txt").unlink()
    assert missing_tokenizer(source) == "no tokenizer.json, nor vocab.json with merges.txt"
