"""The audit finds no fault in faithful artifacts, whatever their layout, and reads them in bounded memory."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.artifact import read_manifest
from intaglio.errors import ArtifactError
from intaglio.exporter import export
from intaglio.exporter.quantize.options import QuantizeOptions
from intaglio.models.checkpoint import Checkpoint
from intaglio.parity.audit import audit, expected
from intaglio.tests import tiny
from intaglio.tests.files.artifact_files import data_of, graph_of
from intaglio.tests.test_imports import environment
from torch import Tensor

from ..artifacts import Base, Pair, Shelf

ODD: dict[str, Any] = {
    "hidden_size": 36,
    "intermediate_size": 45,
    "head_dim": 16,
    "vocab_size": 287,
    "num_hidden_layers": 2,
}
ODD_HYBRID = ODD | {"layer_types": ["sliding_attention", "full_attention"]}
TIED: dict[str, Any] = {"tie_word_embeddings": True}
ROUNDING = 1e-7
"""The difference between the manifest's error and the audit's, sums of the same numbers."""


def quantized(
    family: str, precision: str, target: str, method: str, size: int | None = None, **changes: object
) -> Base:
    options: dict[str, Any] = {"method": method, "block_size": size}
    options |= {"windows": 2} if method != "rtn" else {}
    trained = None if changes else f"tiny-{family}"
    return Base(family, "text-generation", precision, target, changes=changes, options=options, trained=trained)


QUICK = [
    Base("qwen2"),
    Base("exaone4", "question-answering", target="standard"),
    Base("exaone4", precision="fp16"),
    Base("qwen2", "text-classification", "bf16", "standard"),
    Base("qwen2", rope={"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}),
    quantized("qwen2", "int4", "standard", "rtn", 16, **ODD, **TIED),
    quantized("exaone4", "int4", "standard", "rtn", 32, **ODD_HYBRID),
    quantized("exaone4", "int8", "ort", "rtn", 64, **ODD_HYBRID, **TIED),
    quantized("exaone4", "int4", "ort", "gptq", 32),
    quantized("qwen2", "int8", "ort", "smoothquant"),
    quantized("qwen2", "int4", "standard", "awq", 32),
]
HEADS = ("feature-extraction", "text-classification", "token-classification", "question-answering")
FAMILIES, TARGETS = ("qwen2", "exaone4"), ("ort", "standard")
SLOW = [
    *(Base(family, task, target=target) for family in FAMILIES for task in HEADS for target in TARGETS),
    *(
        quantized(family, precision, target, "rtn", size, **odd, tie_word_embeddings=tied)
        for family, odd in zip(FAMILIES, (ODD, ODD_HYBRID), strict=True)
        for precision in ("int8", "int4")
        for target in TARGETS
        for size in (16, 64, 256)
        for tied in (False, True)
    ),
    *(
        quantized(family, precision, target, method, size)
        for family in FAMILIES
        for precision in ("int8", "int4")
        for target in TARGETS
        for method, size in (("gptq", 16), ("gptq", 128), ("awq", 64), ("auto", None))
    ),
]


def case_name(base: Base) -> str:
    parts = [base.family, base.task, base.precision, base.target, *map(str, base.options.values())]
    parts += ["tied"] * bool(base.changes.get("tie_word_embeddings")) + ["odd"] * ("vocab_size" in base.changes)
    return "-".join(parts)


def assert_no_faults(pair: Pair) -> None:
    manifest, calls = read_manifest(pair.artifact), []
    errors = audit(
        pair.artifact, manifest, Checkpoint(pair.checkpoint), lambda done, total: calls.append((done, total))
    )
    assert [(error.name, error.fault) for error in errors if error.fault] == []
    (frequencies,) = [name for name in manifest.tensors if name.endswith("rotary_emb.inv_freq")]
    owner = frequencies.rpartition(".")[0]
    model = manifest.model
    by_position = manifest.target == "ort" and not (model.head_dim % 16 or model.length_dependent_rope)
    tables = {f"{owner}.cos", f"{owner}.sin"} if by_position else set()
    for error in errors:
        assert error.elements > 0
        if error.name in tables:
            assert error.error == 0.0
            continue
        entry = manifest.tensors[error.name]
        if entry.quantization is None:
            assert error.error < 1e-7
            assert error.worst_block is None
        else:
            folded = any(e.quantization and e.quantization.method == "awq" for e in manifest.tensors.values())
            assert error.error == pytest.approx(entry.quantization.error, rel=0.02 if folded else 1e-6, abs=ROUNDING)
            assert error.recorded == entry.quantization.error
            assert error.worst_block is not None
            assert error.worst_block >= error.error
    stored = {name for name, entry in manifest.tensors.items() if entry.sources or "rotary_emb" in name}
    assert {error.name for error in errors} == stored | tables
    total = sum(error.elements for error in errors if error.name not in tables and manifest.tensors[error.name].sources)
    assert calls[-1] == (total, total)


@pytest.mark.parametrize("base", QUICK, ids=case_name)
def test_faithful(base: Base, shelf: Shelf) -> None:
    assert_no_faults(shelf.pair(base))


@pytest.mark.slow
@pytest.mark.parametrize("base", SLOW, ids=case_name)
def test_every_layout(base: Base, shelf: Shelf) -> None:
    assert_no_faults(shelf.pair(base))


def test_through_an_artifact_in_fp16(shelf: Shelf, tmp_path: Path) -> None:
    """A quantized artifact may have been made from one in fp16, which rounded its numbers before."""
    between = shelf.pair(Base("exaone4", precision="fp16"))
    export(between.artifact, tmp_path / "out", precision="int8", options=QuantizeOptions(method="rtn"))
    assert_no_faults(Pair(tmp_path / "out", between.checkpoint))


def test_small_chunks(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers that are compared at once are limited, by rows and by columns; the result is the same."""
    largest = 0
    chunks = expected.Expected.chunks

    def recorded(
        self: expected.Expected, *, by_columns: bool, column_step: int = 1
    ) -> Iterator[tuple[range, range, Tensor]]:
        nonlocal largest
        for rows, columns, numbers in chunks(self, by_columns=by_columns, column_step=column_step):
            largest = max(largest, numbers.numel())
            yield rows, columns, numbers

    monkeypatch.setattr(expected, "CHUNK", 1 << 12)
    monkeypatch.setattr(expected.Expected, "chunks", recorded)
    for base in (quantized("exaone4", "int4", "ort", "gptq", 32), quantized("qwen2", "int4", "standard", "awq", 32)):
        largest = 0
        assert_no_faults(shelf.pair(base))
        assert largest <= 32 * 384, base  # a block of columns is the smallest chunk


MEMORY = """
import resource, sys
from intaglio.artifact import read_manifest
from intaglio.models.checkpoint import Checkpoint
from intaglio.parity.audit import audit
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
errors = audit(sys.argv[1], read_manifest(sys.argv[1]), Checkpoint(sys.argv[2]))
assert not [error.fault for error in errors if error.fault]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_memory_does_not_grow_with_a_tensor(precision: str, tmp_path: Path) -> None:
    """An embedding of 400 MB in float32 is read in half of that."""
    values = tiny.config("qwen2", hidden_size=1024, vocab_size=100_000, num_hidden_layers=1, **TIED)
    folder = tiny.write(tmp_path / "in", values, dtype=torch.bfloat16)
    options = QuantizeOptions(method="rtn") if precision == "int4" else None
    export(folder, tmp_path / "out", precision=precision, options=options)  # type: ignore[arg-type]
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "out"), str(folder)]
    kilobytes = int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment()).stdout)
    assert kilobytes < 200_000


def test_data_cut_short(shelf: Shelf, tmp_path: Path) -> None:
    pair = shelf.copy(Base("qwen2"), tmp_path / "out")
    data = data_of(pair.artifact)
    data.write_bytes(data.read_bytes()[:5000])
    with pytest.raises(
        ArtifactError, match=r"onnx/model.onnx_data: initializer \S+ ends at byte [\d,]+, and the file has 5,000"
    ):
        assert_no_faults(pair)


def test_graph_unreadable(shelf: Shelf, tmp_path: Path) -> None:
    pair = shelf.copy(Base("qwen2"), tmp_path / "out")
    graph_of(pair.artifact).write_bytes(b"\xff" * 100)
    with pytest.raises(ArtifactError, match=r"model.onnx cannot be read \(.*\); export the model again"):
        assert_no_faults(pair)


def test_another_model(shelf: Shelf) -> None:
    artifact, other = shelf.pair(Base("exaone4")).artifact, shelf.pair(Base("qwen2")).checkpoint
    with pytest.raises(ArtifactError, match=r"was made from the tensor \S+, which \S+ does not have"):
        assert_no_faults(Pair(artifact, other))
