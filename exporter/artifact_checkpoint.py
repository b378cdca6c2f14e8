"""An unquantized artifact read as the checkpoint it was made from: packing and transposing are undone.

The manifest lists the tensors of the checkpoint that an initializer holds, the graph gives the location of its
bytes and its use, and the config the shape of each tensor. Weights are read in ranges, as from a checkpoint.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from ..artifact import (
    FLOAT_PRECISIONS,
    FloatPrecision,
    Manifest,
    Source,
    Task,
    TensorEntry,
    read_manifest,
    sha256_file,
)
from ..errors import ArtifactError, UsageError
from ..files.library_errors import library_errors
from ..models.config import ConfigReader, ModelConfig
from ..models.dtypes import SAFETENSORS_DTYPES, SAFETENSORS_NAMES, TORCH_DTYPES
from ..models.family import FAMILIES
from ..models.heads import build
from ..models.loading.parameters import stored_name
from ..models.weight_source import CHUNK_BYTES, TensorInfo, find_trunk, row_ranges

BLOCK_BYTES = 1 << 25
"""Bytes of the file that are mapped at once. Pages of a mapping count as resident memory until it is closed."""

CONFIG = "config.json"


@dataclass(frozen=True)
class TensorLocation:
    """The location of a tensor [N, K] (or [N]: K is 1) in the weights' file.

    Its rows are the rows ``first`` and following of a matrix of ``pitch`` columns that begins at byte ``offset``; if it
    was ``transposed``, that matrix's columns.
    """

    offset: int
    pitch: int
    first: int
    transposed: bool


class ArtifactCheckpoint:
    """A source of weights over an unquantized artifact; ``origin`` is the checkpoint that it was made from."""

    def __init__(self, folder: str | Path) -> None:
        """Read the manifest, the config and the graph; no weights.

        Raises:
            ArtifactError: a file is missing or differs from the manifest.
            CheckpointError, UnsupportedError: config.json is not that of a supported model.
            UsageError: the artifact is quantized already.
        """
        self.folder = self.text_folder = Path(folder)
        self.changed_config: Mapping[str, Any] = {}
        self.manifest = read_manifest(folder)
        _refuse_quantized(self.folder, self.manifest)
        _check_files(self.folder, self.manifest)
        self.config = _read_config(self.folder, self.manifest)
        names = (source for entry in self.manifest.tensors.values() for source in entry.sources)
        self.trunk_prefix = find_trunk(names, self.folder)
        self.tensors: dict[str, TensorInfo] = {}
        self._locations: dict[str, TensorLocation] = {}
        self._locate()

    @property
    def task(self) -> Task:
        return self.manifest.task

    @property
    def origin(self) -> Source:
        return self.manifest.source

    @property
    def notes(self) -> tuple[str, ...]:
        return self.manifest.notes

    def _locate(self) -> None:
        shapes = self._shapes()
        path, data = self.folder / self.manifest.graph, self.folder / self.manifest.data
        with library_errors(lambda why: ArtifactError(f"{path} cannot be read ({why}); export the model again")):
            initializers = ir.load(path).graph.initializers
        for name, entry in self.manifest.tensors.items():
            where = f"{self.folder}: {name}"
            # A tensor that was computed from the config has no sources; it is computed again.
            for source, location in _locations(entry, initializers.get(name), shapes, data.name, where):
                self._locations[source] = location
                dtype = SAFETENSORS_NAMES[_float(entry)]
                self.tensors[source] = TensorInfo(data, dtype, shapes[source])

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor that the checkpoint had for this task, by its name there."""
        with torch.device("meta"):
            state = build(self.config, self.task).state_dict()
        return {stored_name(self, name, self.task): tuple(parameter.shape) for name, parameter in state.items()}

    def tensor(self, name: str) -> Tensor:
        return self._rows(name, 0, self.tensors[name].shape[0])

    def rows(self, name: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, Tensor]]:
        for start, stop in row_ranges(self.tensors[name], chunk_bytes):
            yield start, self._rows(name, start, stop)

    def _rows(self, name: str, start: int, stop: int) -> Tensor:
        shape = self.tensors[name].shape
        return self._read(name, range(start, stop), range(shape[1] if len(shape) > 1 else 1)).view(-1, *shape[1:])

    def columns(self, name: str, start: int, stop: int) -> Tensor:
        rows, columns = self.tensors[name].shape
        return self._read(name, range(rows), range(columns)[start:stop])

    def _read(self, name: str, rows: range, columns: range) -> Tensor:
        """Read part of a tensor, [rows, columns], into memory of its own."""
        location, dtype = self._locations[name], SAFETENSORS_DTYPES[self.tensors[name].dtype]
        stacked = range(location.first + rows.start, location.first + rows.stop)
        down, across = (columns, stacked) if location.transposed else (stacked, columns)
        chunk = torch.empty(len(rows), len(columns), dtype=dtype)
        target = chunk.t() if location.transposed else chunk
        step = max(1, BLOCK_BYTES // (location.pitch * dtype.itemsize))
        for start in range(0, len(down), step):
            block = down[start : start + step]
            with self._mapped(name, location, block) as matrix:
                target[start : start + len(block)] = matrix[:, across.start : across.stop]
        return chunk

    @contextmanager
    def _mapped(self, name: str, location: TensorLocation, rows: range) -> Iterator[Tensor]:
        """Map whole rows of the matrix that holds a tensor."""
        info = self.tensors[name]
        dtype = SAFETENSORS_DTYPES[info.dtype]
        width = location.pitch * dtype.itemsize
        remedy = "export the model again"
        with library_errors(lambda why: ArtifactError(f"{info.file}: tensor {name} cannot be read ({why}); {remedy}")):
            # Copy on write, because torch warns of memory that it could not write to. numpy has no bfloat16.
            data = np.memmap(info.file, np.uint8, "c", location.offset + rows.start * width, (len(rows), width))
        yield torch.from_numpy(data).view(dtype)


def _read_config(folder: Path, manifest: Manifest) -> ModelConfig:
    if manifest.family not in FAMILIES:
        raise ArtifactError(f"{folder}: the manifest's family {manifest.family!r} is unknown; export the model again")
    config = FAMILIES[manifest.family].parse(ConfigReader.open(folder))
    return config if manifest.model.causal else replace(config, is_causal=False)


def _refuse_quantized(folder: Path, manifest: Manifest) -> None:
    precisions = [manifest.precision, *(entry.precision for entry in manifest.tensors.values())]
    quantized = [precision for precision in precisions if precision not in FLOAT_PRECISIONS]
    if quantized:
        raise UsageError(
            f"{folder} is quantized already, to {quantized[0]}; quantize the checkpoint it was made from "
            f"({manifest.source.id}) or its unquantized artifact"
        )


def _float(entry: TensorEntry) -> FloatPrecision:
    """Return a tensor's float precision; ``_refuse_quantized`` has rejected all others."""
    return next(precision for precision in FLOAT_PRECISIONS if precision == entry.precision)


def _check_files(folder: Path, manifest: Manifest) -> None:
    """Compare the sizes of all files, and the checksums of the graph and the config."""
    remedy = "export the model again"
    for name in (manifest.graph, manifest.data, CONFIG):
        if name not in manifest.files:
            raise ArtifactError(f"{folder}: the manifest lists no {name}; {remedy}")
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"{path} is missing; {remedy}")
        if (size := path.stat().st_size) != entry.size:
            raise ArtifactError(f"{path} has {size:,} bytes, the manifest says {entry.size:,}; {remedy}")
        if name in (manifest.graph, CONFIG) and sha256_file(path) != entry.sha256:
            raise ArtifactError(f"{path}: its SHA-256 differs from the manifest's; {remedy}")


def _locations(
    entry: TensorEntry, value: ir.Value | None, shapes: Mapping[str, tuple[int, ...]], data: str, where: str
) -> list[tuple[str, TensorLocation]]:
    """Return the location of each tensor that an initializer holds.

    A linear layer's weight is [N, K] in a checkpoint. MatMul takes [K, N]: a weight that is its right operand was
    transposed. Every other operator takes weights as they are.
    """
    if not entry.sources:
        return []
    held = value.const_value if value is not None else None
    unknown = [source for source in entry.sources if source not in shapes]
    if value is None or not isinstance(held, ir.ExternalTensor) or held.location != data or unknown:
        raise _mismatch(where, "the graph and the config have no such weight")
    transposed = any(use.node.op_type == "MatMul" and use.idx == 1 for use in value.uses())
    own = [shapes[source] for source in entry.sources]
    rows = sum(shape[0] for shape in own)
    shape = (rows, *own[0][1:])
    stored = shape[::-1] if transposed else shape
    itemsize = TORCH_DTYPES[_float(entry)].itemsize
    offset, length = held.offset or 0, torch.Size(stored).numel() * itemsize
    if not entry.shape == tuple(held.shape) == stored or held.dtype.itemsize != itemsize or held.length != length:
        raise _mismatch(where, f"is {tuple(held.shape)} in the graph and {entry.shape} in the manifest, not {stored}")
    firsts = [sum(part[0] for part in own[:index]) for index in range(len(own))]
    pitch = stored[1] if len(stored) > 1 else 1
    locations = [TensorLocation(offset, pitch, first, transposed) for first in firsts]
    return list(zip(entry.sources, locations, strict=True))


def _mismatch(where: str, what: str) -> ArtifactError:
    return ArtifactError(f"{where}: {what}; export the model again")
