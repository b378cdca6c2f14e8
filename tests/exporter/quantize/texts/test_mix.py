"""Several calibration texts: their shares of the windows, the order of these, and what the manifest says of them."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.artifact import CalibrationText, read_manifest
from intaglio.errors import UsageError
from intaglio.exporter import QuantizeOptions, export, quantize
from intaglio.exporter.quantize.calibration import (
    DEFAULT_TEXT,
    Calibration,
    CalibrationWindows,
    read_windows,
    shares,
)
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests import tiny
from tokenizers import Tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "checkpoint", tiny.config("qwen2", num_hidden_layers=1), tokenizer=True)


def write(path: Path, word: str, count: int) -> Path:
    path.write_text(f"{word} " * count, encoding="utf-8")
    return path


def read(folder: Path, *texts: str | Path, windows: int, length: int = 100) -> CalibrationWindows:
    return read_windows(Checkpoint(folder), Calibration(texts, windows, length), lambda *_: None)


@pytest.mark.parametrize(
    ("total", "most", "found"),
    [
        (9, [100, 100, 100], [3, 3, 3]),
        (8, [100, 100, 100], [3, 3, 2]),
        (9, [1, 100, 100], [1, 4, 4]),
        (10, [1, 2, 100], [1, 2, 7]),
        (10, [2, 3], [2, 3]),
        (0, [4], [0]),
    ],
)
def test_shares_are_equal_but_where_a_text_has_less(total: int, most: list[int], found: list[int]) -> None:
    assert shares(total, most) == found


def test_the_windows_of_several_texts_alternate(folder: Path, tmp_path: Path) -> None:
    one, other = write(tmp_path / "one.txt", "stone", 3000), write(tmp_path / "other.txt", "seal", 3000)
    mixed = read(folder, one, other, windows=6)
    assert mixed.text.tolist() == [0, 1, 0, 1, 0, 1]
    alone = [read(folder, text, windows=3).tokens for text in (one, other)]
    for index, windows in enumerate(alone):
        assert torch.equal(mixed.tokens[mixed.text == index], windows)
    assert not torch.equal(*alone)


def test_a_short_text_gives_what_it_has(folder: Path, tmp_path: Path) -> None:
    long, short = write(tmp_path / "long.txt", "stone", 20_000), write(tmp_path / "short.txt", "seal", 2500)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    has = len(tokenizer.encode(short.read_text(), add_special_tokens=False).ids) // 100
    mixed = read(folder, long, short, windows=4 * has)
    assert (mixed.text == 1).sum() == has
    assert (mixed.text == 0).sum() == 3 * has
    # They are spread over the others: each quarter of the windows has a quarter of them, or one more or less.
    for quarter in mixed.text.view(4, has):
        assert abs(int(quarter.sum()) - has / 4) <= 1


def test_a_few_windows_are_of_every_text(folder: Path, tmp_path: Path) -> None:
    """Sensitivities are measured on few windows."""
    texts = [write(tmp_path / f"{word}.txt", word, 3000) for word in ("stone", "seal", "text")]
    mixed = read(folder, *texts, windows=22)
    firsts = [mixed.tokens[mixed.text == index] for index in range(3)]
    few = mixed.few(4)
    assert len(few) == 4
    for windows in firsts:
        assert any(torch.equal(few[i], one) for i in range(4) for one in windows)
    assert len(mixed.few(2)) == 3
    alone = read(folder, texts[0], windows=10)
    assert torch.equal(alone.few(4), alone.tokens[[0, 3, 6, 9]])


def test_fewer_windows_than_texts(folder: Path, tmp_path: Path) -> None:
    text = write(tmp_path / "one.txt", "stone", 3000)
    with pytest.raises(UsageError) as caught:
        read(folder, "default", text, windows=1)
    assert str(caught.value) == "1 windows for 2 calibration texts; give at least 2 as --windows"
    assert len(read(folder, text, text, windows=1).tokens) == 1  # given twice, read once


def test_each_text_must_be_long_enough(folder: Path, tmp_path: Path) -> None:
    short = write(tmp_path / "short.txt", "seal", 30)
    with pytest.raises(UsageError) as caught:
        read(folder, "default", short, windows=4)
    assert str(caught.value).startswith(f"{short} has ")
    assert "tokens, and calibration needs at least 2,048; give a longer text as --calibration" in str(caught.value)


@pytest.mark.parametrize(
    ("precision", "options"),
    [
        ("int4", {}),
        ("int4", {"method": "gptq"}),
        ("int4", {"method": "awq"}),
        ("int8", {"method": "smoothquant"}),
    ],
    ids=str,
)
def test_the_manifest_names_the_texts(folder: Path, tmp_path: Path, precision: Any, options: dict[str, Any]) -> None:
    text = write(tmp_path / "one.txt", "stone", 3000)
    asked = QuantizeOptions(**options, calibration=["default", text], windows=4)
    manifest = quantize(folder, tmp_path / "out", precision=precision, options=asked)
    assert manifest.calibration == (
        CalibrationText("default", hashlib.sha256(DEFAULT_TEXT.read_bytes()).hexdigest(), 2 * 128),
        CalibrationText("one.txt", hashlib.sha256(text.read_bytes()).hexdigest(), 2 * 128),
    )
    assert read_manifest(tmp_path / "out").calibration == manifest.calibration
    again = export(folder, tmp_path / "again", precision=precision, options=asked)
    assert asdict(again) == asdict(manifest)


def test_a_text_changes_the_weights_and_rounding_reads_none(folder: Path, tmp_path: Path) -> None:
    text = write(tmp_path / "one.txt", "stone", 3000)
    made = {}
    for name, calibration in (("default", None), ("named", "default"), ("text", str(text))):
        options = QuantizeOptions("gptq", calibration=calibration, windows=4)
        made[name] = quantize(folder, tmp_path / name, options=options)
    digests = {name: manifest.files[manifest.data].sha256 for name, manifest in made.items()}
    assert digests["default"] == digests["named"] != digests["text"]
    rounded = quantize(folder, tmp_path / "rtn", options=QuantizeOptions("rtn"))
    assert rounded.calibration == ()
    assert '"calibration"' not in rounded.to_json()
