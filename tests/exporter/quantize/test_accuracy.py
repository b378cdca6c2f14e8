"""Trained checkpoints in int4: a classifier keeps its accuracy on SST-2, and a text model its weights."""

from pathlib import Path

import pytest
from intaglio import check
from intaglio.artifact import read_manifest
from intaglio.exporter import QuantizeOptions, export, quantize
from intaglio.runtime import SequenceClassifier, load
from intaglio.tests.test_tiny_checkpoints import CHECKPOINTS

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "sst2-dev.tsv"
LOSS = 0.005
"""The largest accepted drop in accuracy."""


@pytest.mark.skipif(not DATA.is_file(), reason=f"needs {DATA.name}, which is not part of the project")
def test_sentiment(tmp_path: Path) -> None:
    lines = [line.rpartition("\t") for line in DATA.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line[2] in ("0", "1")]
    wanted = ["positive" if label == "1" else "negative" for _, _, label in lines]
    accuracy: dict[str, float] = {}
    for precision in ("fp32", "int8", "int4"):
        export(CHECKPOINTS / "tiny-qwen2-sst2", tmp_path / precision, precision=precision)
        classify = load(tmp_path / precision, threads=1)
        assert isinstance(classify, SequenceClassifier)
        found = classify([text for text, _, _ in lines])
        accuracy[precision] = sum(f.label == w for f, w in zip(found, wanted, strict=True)) / len(wanted)
    assert accuracy["fp32"] > 0.7
    assert min(accuracy["int8"], accuracy["int4"]) >= accuracy["fp32"] - LOSS


def test_little_text_does_not_take_weights_away_from_their_source(tmp_path: Path) -> None:
    """The errors of the tiny model's embedding are large beside what its first attention gives out."""
    source, out = CHECKPOINTS / "tiny-qwen2", tmp_path / "int4"
    quantize(source, out, options=QuantizeOptions(windows=8))
    facts = [entry.quantization for entry in read_manifest(out).tensors.values() if entry.quantization is not None]
    assert max(one.error for one in facts) < 0.4
    assert check(out, source=source).verdict != "broken"
