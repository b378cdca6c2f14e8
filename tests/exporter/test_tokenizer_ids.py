"""A tokenizer whose ids exceed the vocabulary is named at export, before anything is written."""

import json
from pathlib import Path

import pytest
from intaglio import load
from intaglio.errors import CheckpointError, PromptError
from intaglio.exporter import export
from intaglio.exporter.tokenizer import check_tokenizer
from intaglio.tests import tiny
from tokenizers import AddedToken, Tokenizer, processors


def written(folder: Path) -> tuple[Path, Tokenizer]:
    tiny.write(folder, tiny.config("qwen2"), tokenizer=True)
    return folder, Tokenizer.from_file(str(folder / "tokenizer.json"))


def change_vocabulary(folder: Path, size: int) -> None:
    values = json.loads((folder / "config.json").read_text())
    tensors = tiny.weights(values | {"vocab_size": size})
    tiny.write(folder, values | {"vocab_size": size}, tensors=tensors)


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        export(folder, folder.parent / "out")
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]
    return str(caught.value)


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    folder, tokenizer = written(tmp_path / "checkpoint")
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    change_vocabulary(folder, 200)
    count = sum(number >= 200 for number in by_id)
    assert refused(folder).startswith(
        f"{folder}: the tokenizer has {count} tokens with ids beyond config.json's vocab_size of 200, first "
        f"{by_id[200]!r} (200), {by_id[201]!r} (201), "
    )


def test_an_added_token_beyond_the_vocabulary(tmp_path: Path) -> None:
    folder, tokenizer = written(tmp_path / "checkpoint")
    change_vocabulary(folder, tokenizer.get_vocab_size())
    assert check_tokenizer(folder, tokenizer.get_vocab_size()).note is None
    number = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens([AddedToken("[PAD]", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    manifest = export(folder, tmp_path / "out")
    assert manifest.notes == (
        f"the vocabulary of {number} has no row for added tokens, which texts must not contain: '[PAD]' ({number})",
    )
    model = load(tmp_path / "out", task="text-generation", threads=1)
    with pytest.raises(PromptError, match=f"token id {number} is out of range"):
        model.generate("a text [PAD]", max_new_tokens=1)


def test_a_token_that_is_added_to_every_text(tmp_path: Path) -> None:
    folder, tokenizer = written(tmp_path / "checkpoint")
    number = tokenizer.get_vocab_size()
    change_vocabulary(folder, number)
    tokenizer.add_special_tokens([AddedToken("[EOS]", special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A [EOS]", special_tokens=[("[EOS]", number)])
    tokenizer.save(str(folder / "tokenizer.json"))
    assert f"1 tokens with ids beyond config.json's vocab_size of {number}, first '[EOS]' ({number})" in refused(folder)
