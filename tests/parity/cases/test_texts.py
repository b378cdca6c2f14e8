"""The text that a check reads by default: of many kinds, and nothing that a quantization was calibrated on."""

import re
import unicodedata
from pathlib import Path

import pytest
from intaglio.exporter.quantize.calibration import DEFAULT_TEXT as CALIBRATION_TEXT
from intaglio.parity.cases.texts import DEFAULT_TEXT, read_tokens, windows
from intaglio.runtime.text.tokenizer import load_tokenizer

TEXT = DEFAULT_TEXT.read_text(encoding="utf-8")
CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
SHARED = 32
"""Characters in a row that no two texts have in common by chance."""


def runs(text: str) -> set[str]:
    """Every run of that many characters, spaces aside."""
    packed = re.sub(r"\s+", " ", text)
    return {packed[start : start + SHARED] for start in range(len(packed) - SHARED)}


def test_shares_nothing_with_the_calibration_text() -> None:
    calibration = runs(CALIBRATION_TEXT.read_text(encoding="utf-8"))
    assert len(calibration) > 100_000
    assert not runs(TEXT) & calibration


def test_repeats_nothing() -> None:
    paragraphs = [paragraph for paragraph in TEXT.split("\n\n") if len(paragraph) > SHARED]
    assert len(paragraphs) == len(set(paragraphs)) > 60


def test_size() -> None:
    assert 30_000 < len(TEXT.encode()) < 50_000


@pytest.mark.parametrize("script", ["LATIN", "HANGUL", "CJK", "HIRAGANA", "CYRILLIC", "ARABIC", "DEVANAGARI", "GREEK"])
def test_has_many_scripts(script: str) -> None:
    assert sum(unicodedata.name(character, "").startswith(script) for character in TEXT) > 20


@pytest.mark.parametrize(
    "sample", ["def ", "#include", '"readings": [', "SELECT ", "| Aperture |", "\\int_0^1", "🚲", "ERROR", "fn "]
)
def test_has_many_kinds(sample: str) -> None:
    assert sample in TEXT


@pytest.mark.parametrize("name", ["tiny-qwen2", "tiny-exaone4"])
def test_windows_of_it_differ(name: str) -> None:
    tokens = read_tokens(None, load_tokenizer(CHECKPOINTS / name), 0, 512)
    found = windows(tokens, 16, 512)
    assert len(found) == 16
    assert len({window.tobytes() for window in found}) == 16
