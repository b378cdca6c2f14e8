"""An unquantized artifact read as the checkpoint it was made from: what was packed and transposed is taken apart again.

The manifest says which tensors of the checkpoint an initializer holds, ``model.onnx`` where its bytes lie and how it
is used, and the config how large each tensor is. Weights are read in ranges, as from a checkpoint.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from ..artifact import (
    DATA,
    FLOAT_PRECISIONS,
    GRAPH,
    FloatPrecision,
    Manifest,
    Source,
    TensorEntry,
    read_manifest,
    sha256_file,
)
from ..errors import ArtifactError, UsageError
from ..models.checkpoint import Checkpoint
from ..models.dtypes import SAFETENSORS_DTYPES, SAFETENSORS_NAMES, TORCH_DTYPES
from ..models.heads import TRUNK_ATTRIBUTE, build
from ..models.weight_source import TensorInfo, find_trunk

BLOCK_BYTES = 1 << 25
"""How much of the file is mapped at once. Pages of a mapping count as resident memory until it is closed."""

CONFIG = "config.json"


@dataclass(frozen=True)
class Place:
    """Where a tensor [N, K] (or [N]: K is 1) lies in the weights' file.

    Its rows are the rows ``first`` and following of a matrix of ``pitch`` columns that begins at byte ``offset``; or,
    where it was ``transposed``, that matrix's columns.
    """

    offset: int
    pitch: int
    first: int
    transposed: bool


class ArtifactCheckpoint(Checkpoint):
    """An opened artifact. ``source`` is what it was made from; ``task`` is the artifact's."""

    def __init__(self, folder: str | Path) -> None:
        """Read the manifest and the graph; no weights.

        Raises:
            ArtifactError: a file is missing or not as the manifest says.
            UsageError: the artifact is quantized already.
        """
        self.manifest = read_manifest(folder)
        _refuse_quantized(Path(folder), self.manifest)
        _check_files(Path(folder), self.manifest)
        super().__init__(folder)
        self.task = self.manifest.task

    @property
    def source(self) -> Source:
        return self.manifest.source

    def _find(self) -> tuple[tuple[Path, ...], dict[str, TensorInfo]]:
        file = self.folder / DATA
        self._places: dict[str, Place] = {}
        tensors: dict[str, TensorInfo] = {}
        shapes = self._shapes()
        initializers = ir.load(self.folder / GRAPH).graph.initializers
        for name, entry in self.manifest.tensors.items():
            # What was computed from the config has no source, and is computed again.
            for source, place in _places(entry, initializers.get(name), shapes, f"{self.folder}: {name}"):
                self._places[source] = place
                tensors[source] = TensorInfo(file, SAFETENSORS_NAMES[_float(entry)], shapes[source])
        return (file,), tensors

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor that the checkpoint had for this task, by its name there."""
        task = self.manifest.task
        prefix = find_trunk((s for entry in self.manifest.tensors.values() for s in entry.sources), self.folder)
        own = f"{TRUNK_ATTRIBUTE[task]}." if task in TRUNK_ATTRIBUTE else ""
        with torch.device("meta"):
            state = build(self.config, task).state_dict()
        return {
            prefix + name.removeprefix(own) if name.startswith(own) else name: tuple(parameter.shape)
            for name, parameter in state.items()
        }

    def tensor(self, name: str) -> Tensor:
        return self._rows(name, 0, self.tensors[name].shape[0])

    def _rows(self, name: str, start: int, stop: int) -> Tensor:
        shape = self.tensors[name].shape
        return self._read(name, range(start, stop), range(shape[1] if len(shape) > 1 else 1)).view(-1, *shape[1:])

    def columns(self, name: str, start: int, stop: int) -> Tensor:
        rows, columns = self.tensors[name].shape
        return self._read(name, range(rows), range(columns)[start:stop])

    def _read(self, name: str, rows: range, columns: range) -> Tensor:
        """Part of a tensor, [rows, columns], in memory of its own."""
        place, dtype = self._places[name], SAFETENSORS_DTYPES[self.tensors[name].dtype]
        stacked = range(place.first + rows.start, place.first + rows.stop)
        down, across = (columns, stacked) if place.transposed else (stacked, columns)
        piece = torch.empty(len(rows), len(columns), dtype=dtype)
        target = piece.t() if place.transposed else piece
        step = max(1, BLOCK_BYTES // (place.pitch * dtype.itemsize))
        for start in range(0, len(down), step):
            block = down[start : start + step]
            with self._mapped(name, place, block) as matrix:
                target[start : start + len(block)] = matrix[:, across.start : across.stop]
        return piece

    @contextmanager
    def _mapped(self, name: str, place: Place, rows: range) -> Iterator[Tensor]:
        """Whole rows of the matrix that holds a tensor."""
        info = self.tensors[name]
        dtype = SAFETENSORS_DTYPES[info.dtype]
        width = place.pitch * dtype.itemsize
        try:
            # Copy on write, because torch warns of memory that it could not write to. numpy has no bfloat16.
            data = np.memmap(info.file, np.uint8, "c", place.offset + rows.start * width, (len(rows), width))
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"{info.file}: tensor {name} cannot be read ({error}); export the model again"
            ) from None
        yield torch.from_numpy(data).view(dtype)


def _refuse_quantized(folder: Path, manifest: Manifest) -> None:
    precisions = [manifest.precision, *(entry.precision for entry in manifest.tensors.values())]
    quantized = [precision for precision in precisions if precision not in FLOAT_PRECISIONS]
    if quantized:
        raise UsageError(
            f"{folder} is quantized already, to {quantized[0]}; quantize the checkpoint it was made from "
            f"({manifest.source.id}) or its unquantized artifact"
        )


def _float(entry: TensorEntry) -> FloatPrecision:
    """The precision of a tensor, of which ``_refuse_quantized`` has refused the quantized ones."""
    return next(precision for precision in FLOAT_PRECISIONS if precision == entry.precision)


def _check_files(folder: Path, manifest: Manifest) -> None:
    """Compare sizes, and the checksums of the two files that say how to read the weights."""
    remedy = "export the model again"
    for name in (GRAPH, DATA, CONFIG):
        if name not in manifest.files:
            raise ArtifactError(f"{folder}: the manifest lists no {name}; {remedy}")
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"{path} is missing; {remedy}")
        if (size := path.stat().st_size) != entry.size:
            raise ArtifactError(f"{path} has {size:,} bytes, the manifest says {entry.size:,}; {remedy}")
        if name in (GRAPH, CONFIG) and sha256_file(path) != entry.sha256:
            raise ArtifactError(f"{path}: its SHA-256 differs from the manifest's; {remedy}")


def _places(
    entry: TensorEntry, value: ir.Value | None, shapes: Mapping[str, tuple[int, ...]], where: str
) -> list[tuple[str, Place]]:
    """The place of each tensor that an initializer holds.

    A linear layer's weight is [N, K] in a checkpoint. MatMul multiplies by [K, N]: a weight that is its right operand
    was transposed. Every other operator takes weights as they are.
    """
    if not entry.sources:
        return []
    held = value.const_value if value is not None else None
    unknown = [source for source in entry.sources if source not in shapes]
    if value is None or not isinstance(held, ir.ExternalTensor) or held.location != DATA or unknown:
        raise _mismatch(where, f"{GRAPH} and the config know no such weight")
    transposed = any(use.node.op_type == "MatMul" and use.idx == 1 for use in value.uses())
    own = [shapes[source] for source in entry.sources]
    rows = sum(shape[0] for shape in own)
    shape = (rows, *own[0][1:])
    stored = shape[::-1] if transposed else shape
    itemsize = TORCH_DTYPES[_float(entry)].itemsize
    offset, length = held.offset or 0, torch.Size(stored).numel() * itemsize
    if not entry.shape == tuple(held.shape) == stored or held.dtype.itemsize != itemsize or held.length != length:
        raise _mismatch(where, f"is {tuple(held.shape)} in {GRAPH} and {entry.shape} in the manifest, not {stored}")
    firsts = [sum(part[0] for part in own[:index]) for index in range(len(own))]
    pitch = stored[1] if len(stored) > 1 else 1
    return [(s, Place(offset, pitch, first, transposed)) for s, first in zip(entry.sources, firsts, strict=True)]


def _mismatch(where: str, what: str) -> ArtifactError:
    return ArtifactError(f"{where}: {what}; export the model again")
