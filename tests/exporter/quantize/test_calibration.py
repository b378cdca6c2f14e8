"""The calibration text: the windows read from it, the tokenizer that reads it, and every text that is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from intaglio.errors import CheckpointError, InputError, UsageError
from intaglio.exporter.quantize.calibration import (
    DEFAULT_TEXT,
    LEAST_TOKENS,
    WINDOWS,
    Calibration,
    CalibrationWindows,
    read_windows,
)
from intaglio.exporter.quantize.layers.stream import LayerStream
from intaglio.models.checkpoint import Checkpoint
from intaglio.runtime.text.tokenizer import load_tokenizer
from intaglio.tests import tiny
from tokenizers import Tokenizer

SENTENCE = "The stone is in the seal, and the seal is in the text. "


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "checkpoint", tiny.config("qwen2", num_hidden_layers=1), tokenizer=True)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(SENTENCE * 400, encoding="utf-8")
    return path


def read(folder: Path, calibration: Calibration, context: int = 128) -> CalibrationWindows:
    checkpoint = Checkpoint(folder)
    checkpoint.config = replace(checkpoint.config, max_position_embeddings=context)
    return read_windows(checkpoint, calibration, lambda *_: None)


def tokens_read(folder: Path, calibration: Calibration, context: int = 128) -> torch.Tensor:
    return read(folder, calibration, context).tokens


def tokens_of(folder: Path, text: Path) -> torch.Tensor:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return torch.tensor(tokenizer.encode(text.read_text(encoding="utf-8"), add_special_tokens=False).ids)


def test_the_default_text_is_there_and_long_enough(folder: Path) -> None:
    windows = tokens_read(folder, Calibration(), 32768)
    assert windows.shape == (WINDOWS, 512)
    assert windows.dtype == torch.int64
    words = DEFAULT_TEXT.read_text(encoding="utf-8")
    assert "import" in words
    assert "права" in words  # not English alone


def test_windows_are_spread_evenly_from_the_first_token_to_the_last(folder: Path, text: Path) -> None:
    tokens = tokens_of(folder, text)
    windows = tokens_read(folder, Calibration((text,), windows=3, length=100), 128)
    assert windows.shape == (3, 100)
    middle = (len(tokens) - 100) // 2
    for window, start in zip(windows, (0, middle, len(tokens) - 100), strict=True):
        assert window.tolist() == tokens[start : start + 100].tolist()
    assert torch.equal(windows, tokens_read(folder, Calibration((text,), windows=3, length=100), 128))


def test_one_window_is_the_beginning(folder: Path, text: Path) -> None:
    assert tokens_read(folder, Calibration((text,), windows=1, length=50), 128).tolist() == [
        tokens_of(folder, text)[:50].tolist()
    ]


def test_a_window_is_no_longer_than_the_models_context_and_the_text_is_not_read_twice(folder: Path, text: Path) -> None:
    tokens = len(tokens_of(folder, text))
    windows = tokens_read(folder, Calibration((text,), windows=10_000), 128)
    assert windows.shape == (tokens // 128, 128)
    assert tokens_read(folder, Calibration((text,), windows=1, length=10**6), 10**6).shape == (1, tokens)


def test_the_text_is_read_with_the_tokenizer_of_the_runtime(folder: Path, text: Path) -> None:
    """The file alone gives other ids: it lacks Qwen2's normalizer, and a token that tokenizer_config.json declares."""
    settings = folder / "tokenizer_config.json"
    declared = {"300": {"content": "<|note|>", "special": True}}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"added_tokens_decoder": declared}))
    text.write_text("The se\u0301al <|note|> is in the stone. " * 200, encoding="utf-8")
    windows = tokens_read(folder, Calibration((text,), windows=1, length=100), 128)
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode_with_offsets(text.read_text(encoding="utf-8"), add_special_tokens=False).ids
    assert windows[0].tolist() == ids[:100]
    assert tokenizer.backend.token_to_id("<|note|>") in ids[:100]
    assert tokenizer.backend.token_to_id("\u00cc") not in ids  # the first byte of a combining accent
    assert windows[0].tolist() != tokens_of(folder, text)[:100].tolist()


def message(folder: Path, calibration: Calibration, kind: type[InputError]) -> str:
    with pytest.raises(kind) as caught:
        tokens_read(folder, calibration, 128)
    return str(caught.value)


def test_a_text_that_is_too_short(folder: Path, text: Path) -> None:
    text.write_text(SENTENCE * 3)
    count = len(tokens_of(folder, text))
    assert message(folder, Calibration((text,)), UsageError) == (
        f"{text} has {count} tokens, and calibration needs at least 2,048; "
        "give a longer text as --calibration, or use --method rtn"
    )
    assert LEAST_TOKENS == 2048
    text.write_text("")
    assert f"{text} has 0 tokens" in message(folder, Calibration((text,)), UsageError)


def test_a_text_that_cannot_be_read(folder: Path, text: Path, tmp_path: Path) -> None:
    remedy = "give a text file as --calibration"
    missing = tmp_path / "none.txt"
    assert message(folder, Calibration((missing,)), UsageError) == f"{missing}: No such file or directory; {remedy}"
    assert message(folder, Calibration((tmp_path,)), UsageError) == f"{tmp_path}: Is a directory; {remedy}"
    text.write_bytes(b"caf\xe9 " * 4000)
    assert message(folder, Calibration((text,)), UsageError) == f"{text} is not text in UTF-8; {remedy}"


def test_a_missing_tokenizer(folder: Path, text: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text("{}")
    assert message(folder, Calibration((text,)), CheckpointError) == (
        f"{path} cannot be read (Model missing. at line 1 column 2); fetch the checkpoint again"
    )
    path.unlink()
    assert message(folder, Calibration((text,)), CheckpointError) == (
        f"{path} is missing, and calibration reads text with it; add it, or use --method rtn"
    )


def test_a_tokenizer_of_another_model(folder: Path, text: Path) -> None:
    windows = tokens_read(folder, Calibration((text,)), 128)
    largest = int(windows.max())
    tiny.write(folder, tiny.config("qwen2", num_hidden_layers=1, vocab_size=largest))
    with pytest.raises(CheckpointError) as caught:
        LayerStream(Checkpoint(folder), windows)
    assert str(caught.value) == (
        f"{folder}: tokenizer.json makes token {largest} of the text, and config.json has vocab_size "
        f"{largest}; the two belong to different models: fetch the checkpoint again"
    )
    tiny.write(folder, tiny.config("qwen2", num_hidden_layers=1, vocab_size=largest + 1))
    assert LayerStream(Checkpoint(folder), windows).hidden.shape == (*windows.shape, 64)
