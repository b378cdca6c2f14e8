"""What becomes of a checkpoint of another format: read, exported as it is, and exported anew."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from intaglio.artifact import Manifest, Precision
from intaglio.errors import UnsupportedError
from intaglio.exporter import QuantizeOptions, export
from intaglio.models.adapters.given import find_adapters
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.quantized.weights import BlockGrid
from intaglio.models.reading.options import ReadOptions
from torch import Tensor

from .case import Case
from .reference import Reference, reference, token_ids
from .stored import StoredGrid, artifact_logits, stored_grids

READ = 1e-7
"""How far a value that is read may be from the library's, as a fraction of the weight's largest."""

LOGITS = 1e-5
"""How far logits may be from those in float64, as a fraction of the largest."""

NOISE = 4
"""How far they may be, as a multiple of what transformers' own are off in float32, where that is more."""

MERGED = 1e-6
"""The same of a value that an adapter was merged into."""

ROUNDED: tuple[Precision, ...] = ("int8", "int4")
OFFERED = ("fp32", *ROUNDED)
"""The precisions that a refusal of the weights as they are offers."""


Kind = Literal["carried", "merged", "refused"]


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Args:
        kind: of the export without a precision; ``merged`` of adapters, whose weights are not quantized.
        reason: why it is refused; of weights that are carried over, how far offsets in float32 move their numbers, as a
            fraction of the largest, where they move them at all.
        errors: of the quantized weights where they are rounded anew instead, by precision, relative to their norm.
    """

    kind: Kind
    reason: str = ""
    errors: Mapping[str, float] = field(default_factory=dict)


def run_case(case: Case, family: str, folder: Path) -> Outcome:
    """Make a checkpoint in an empty folder, and check how it is read and exported.

    Raises:
        AssertionError: it is read or exported other than the format's own library says.
    """
    (folder / "source").mkdir(parents=True)
    source = case.make(folder / "source", family)
    adapters = case.adapters(source) if case.adapters is not None else ()
    expected = case.weights(source)
    merged: dict[str, Any] = {"adapters": adapters} if adapters else {}
    checkpoint = Checkpoint(source, ReadOptions(adapters=find_adapters(adapters)))
    check_read(checkpoint, expected, MERGED if adapters else READ)
    subject = Subject(source, merged, reference(source, expected))
    kind, reason = _as_it_is(subject, checkpoint, folder / "as it is")
    subject.export(folder / "anew", precision="fp32")
    check_logits(folder / "anew", subject.expected)
    errors: dict[str, float] = {one: _error(subject, folder / one, one) for one in ROUNDED if kind == "refused"}
    return Outcome(kind, reason, errors)


@dataclass(frozen=True)
class Subject:
    """What is exported, and the logits that it should give."""

    source: Path
    options: Mapping[str, Any]
    expected: Reference

    def export(self, out: Path, **options: Any) -> Manifest:
        return export(self.source, out, **self.options, **options)


def check_read(checkpoint: Checkpoint, expected: Mapping[str, Tensor], tolerance: float) -> None:
    """Check that the weights are read as the numbers that the library gives."""
    assert expected
    assert set(checkpoint.quantized) <= set(expected)
    for name, weight in expected.items():
        found = checkpoint.tensor(name).float()
        assert found.shape == weight.shape, name
        error = (found - weight.float()).abs().max() / weight.float().abs().max()
        assert error <= tolerance, f"{name}: {error:.1e}"


def check_logits(artifact: Path, expected: Reference) -> None:
    error = expected.difference(artifact_logits(artifact, token_ids(expected.logits.shape[-1])))
    assert error <= max(LOGITS, NOISE * expected.noise), f"logits differ by {error:.1e}"


def check_carried(checkpoint: Checkpoint, artifact: Path) -> float:
    """Check that the artifact has the checkpoint's codes and scales bit for bit; return how far its numbers are off.

    Codes may be moved by a whole number for each block, and zero points and offsets with them. Returns the largest
    difference of a number, as a fraction of the largest of its weight.
    """
    rows = {name: info.shape[0] for name, info in checkpoint.tensors.items()}
    stored = stored_grids(artifact, rows)
    assert set(checkpoint.quantized) <= set(stored)
    off = 0.0
    for name, weight in checkpoint.quantized.items():
        assert weight.grid is not None, name
        given, found = _whole(weight.grid, weight.info.shape), stored[name]
        assert np.array_equal(found.scales, given.scales), name
        moved = found.codes - given.codes
        starts = np.arange(given.codes.shape[1]) // weight.grid.block_size * weight.grid.block_size
        assert np.array_equal(moved, moved[:, starts]), name
        difference = np.abs(found.numbers - given.numbers).max() / np.abs(given.numbers).max()
        assert difference <= READ, f"{name}: {difference:.1e}"
        off = max(off, float(difference))
    return off


def _whole(grid: BlockGrid, shape: tuple[int, ...]) -> StoredGrid:
    """Return a grid as it would be stored, each of its facts for each code."""
    blocks, block = grid.parameters(), np.arange(shape[1]) // grid.block_size
    scales = blocks.scales.numpy()
    offsets = np.zeros_like(scales) if blocks.offsets is None else blocks.offsets.numpy()
    zeros = blocks.zero_points.numpy().astype(np.int16)
    codes = grid.codes(range(shape[0])).numpy().astype(np.int16)
    return StoredGrid(codes, zeros[:, block], scales[:, block], offsets[:, block])


def _as_it_is(subject: Subject, checkpoint: Checkpoint, out: Path) -> tuple[Kind, str]:
    try:
        manifest = subject.export(out)
    except UnsupportedError as error:
        message = str(error)
        assert any(name in message for name in checkpoint.tensors), message
        assert all(precision in message for precision in OFFERED), message
        assert not out.exists()
        return "refused", _reason(message)
    check_logits(out, subject.expected)
    if not checkpoint.quantized:
        assert manifest.precision == "fp32"
        return "merged", ""
    off = check_carried(checkpoint, out)
    return "carried", "" if off == 0 else f"{off:.0e}"


def _reason(message: str) -> str:
    """Return why a refusal says that a weight cannot be exported as it is, without its name and the sizes offered."""
    found = re.search(r"exported as it is: (.*?)(?:; nor can [\d,]+ other weights?)?; export its numbers", message)
    assert found is not None, message
    return found[1]


def _error(subject: Subject, out: Path, precision: Precision) -> float:
    """Return the root mean square of the weights' relative errors in a precision."""
    manifest = subject.export(out, precision=precision, options=QuantizeOptions(method="rtn"))
    found: list[Any] = [one.quantization.error for one in manifest.tensors.values() if one.quantization]
    return float(np.sqrt(np.mean(np.square(found))))
