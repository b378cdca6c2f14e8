"""Writing an artifact folder: all of it, or nothing that looks like one.

Everything is written into a hidden sibling of the destination and renamed at the end. Weights go from the checkpoint
to the disk piece by piece; a second thread writes and hashes while the next piece is read and converted.
"""

import errno
import glob
import hashlib
import os
import queue
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import onnx_ir as ir
import torch
from torch import Tensor

from ..artifact import DATA, MANIFEST, FileEntry, TensorEntry
from ..errors import OutputError, UnsupportedError
from ..models.checkpoint import Checkpoint
from ..models.dtypes import PRECISIONS
from .graph import Graph
from .quantize.formats.recipes import Codes, Scales, ZeroPoints
from .weights import Recipe

PAGE = 4096
"""Weights start on page boundaries, so that a mapped file can be used in place."""

OLD = "-old"
"""The end of the name under which a replaced artifact waits until its successor is in place."""

DTYPES = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT4: torch.uint8,  # two to a byte, which is what their recipes give
    ir.DataType.UINT4: torch.uint8,
}
STORED_PRECISIONS: Mapping[torch.dtype, str] = {**PRECISIONS, torch.uint8: "uint8"}


@contextmanager
def staged(out: Path, *, force: bool) -> Iterator[Path]:
    """A new folder that becomes ``out`` when the block ends well, and disappears when it does not.

    Raises:
        OutputError: ``out`` exists and ``force`` is false, or is no artifact and so nothing to replace; or something
            about the disk.
    """
    shown, out = out, out.absolute()
    prefix = f".{out.name}.intaglio-"
    _clear_abandoned(out, prefix)
    if out.exists() and not force:
        raise OutputError(f"{shown} exists; choose another place, or replace it with --force")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{shown} is a file; an artifact is a folder: choose another place")
    if out.exists() and not (out / MANIFEST).exists() and any(out.iterdir()):
        raise OutputError(f"{shown} holds something else than an artifact and is not replaced; choose another place")
    new_parents = [parent for parent in out.parents if not parent.exists()]
    folder = out.parent / f"{prefix}{os.getpid()}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise _explained(error, shown) from None
    try:
        yield folder
        _replace(out, folder)
    except OSError as error:
        raise _explained(error, shown) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not out.exists():
            with suppress(OSError):  # what is kept for --resume lies there
                for parent in new_parents:
                    parent.rmdir()


def _replace(out: Path, folder: Path) -> None:
    """Rename ``folder`` to ``out``; what was there goes only then, and comes back if the renaming fails."""
    old = folder.with_name(f"{folder.name}{OLD}")
    if out.exists():
        out.rename(old)
    try:
        folder.rename(out)
    finally:
        if not out.exists() and old.exists():
            old.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _clear_abandoned(out: Path, prefix: str) -> None:
    """Remove what a killed export left, and put back what it was about to replace; its process is in the name."""
    for path in out.parent.glob(f"{glob.escape(prefix)}*"):
        process = path.name.removeprefix(prefix).removesuffix(OLD)
        if not process.isdigit() or not Path("/proc").exists() or Path(f"/proc/{process}").exists():
            continue
        if path.name.endswith(OLD) and not out.exists():
            path.rename(out)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _explained(error: OSError, out: Path) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"{out}: the disk is full; free some space or choose another place")
    return OutputError(f"{out} cannot be written ({error.strerror or error}); choose another place")


def check_space(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        OutputError: with both sizes.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{folder.parent}: the artifact needs {needed / 1e6:,.1f} MB and the disk has {free / 1e6:,.1f} MB free; "
            "free some space or choose another place"
        )


def weight_bytes(graph: Graph) -> int:
    """How large the weights' file becomes, without the gaps between pages."""
    values = graph.model.graph.initializers
    return sum(_numel(recipe.shape) * _dtype(values[name]).itemsize for name, recipe in graph.recipes.items())


def write_weights(
    graph: Graph, checkpoint: Checkpoint, folder: Path, advance: Callable[[int], None]
) -> tuple[dict[str, TensorEntry], FileEntry]:
    """Stream every recipe into ``model.onnx.data`` and point the graph's initializers there.

    Args:
        advance: hears the number of bytes of each piece.

    Returns:
        the manifest's entries for the tensors, in the file's order, and for the file.

    Raises:
        UnsupportedError: a weight that the precision cannot hold.
    """
    entries: dict[str, TensorEntry] = {}
    parts = {
        name: recipe.weight for name, recipe in graph.recipes.items() if isinstance(recipe, Codes | Scales | ZeroPoints)
    }
    last = {id(weight): name for name, weight in parts.items()}
    with _Writer(folder / DATA) as writer:
        for name, recipe in graph.recipes.items():
            value = graph.model.graph.initializers[name]
            dtype = _dtype(value)
            offset = writer.align(PAGE)
            for piece in recipe.pieces(checkpoint):
                converted = _convert(piece, dtype, name, recipe.sources)
                writer.write(converted)
                advance(converted.numel() * converted.element_size())
            length = _numel(recipe.shape) * dtype.itemsize
            assert writer.position - offset == length, f"{name}: {writer.position - offset} bytes, expected {length}"
            for user in (name, *(alias for alias, original in graph.aliases.items() if original == name)):
                _point(graph.model.graph.initializers[user], offset, length, folder)
            entries[name] = _entry(recipe, dtype)
            if name in parts and last[id(parts[name])] == name:
                parts[name].forget()
    return entries, writer.entry


def _point(value: ir.Value, offset: int, length: int, folder: Path) -> None:
    """Let an initializer be a range of the weights' file."""
    assert value.dtype is not None
    assert value.shape is not None
    value.const_value = ir.ExternalTensor(
        DATA, offset, length, value.dtype, shape=value.shape, name=value.name or "", base_dir=folder
    )


def _entry(recipe: Recipe, dtype: torch.dtype) -> TensorEntry:
    if isinstance(recipe, Codes):
        facts = recipe.weight.facts
        return TensorEntry(f"int{facts.bits}", recipe.weight.shape, recipe.sources, facts)
    return TensorEntry(STORED_PRECISIONS[dtype], recipe.shape, recipe.sources)


def _convert(piece: Tensor, dtype: torch.dtype, name: str, sources: tuple[str, ...]) -> Tensor:
    # One pass that converts and lays out; .to() and .contiguous() one after the other take three times as long.
    as_it_is = piece.dtype == dtype and piece.is_contiguous()
    converted = piece if as_it_is else torch.empty(piece.shape, dtype=dtype).copy_(piece)
    # Rounding to fp16 is the precision asked for; becoming infinite is not.
    if dtype == torch.float16 and piece.dtype != dtype and converted.isinf().any() and piece.isfinite().all():
        raise UnsupportedError(
            f"{', '.join(sources) or name}: a value of {piece.abs().max().item():.4g} is beyond fp16's 65504; "
            "export with --precision bf16 or fp32"
        )
    return converted


def _dtype(value: ir.Value) -> torch.dtype:
    assert value.dtype is not None
    return DTYPES[value.dtype]


def _numel(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


class _Writer:
    """A file that is written and hashed in a thread of its own, a few pieces behind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0
        self.digest = hashlib.sha256()
        self.queue: queue.Queue[memoryview | None] = queue.Queue(maxsize=2)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    @property
    def entry(self) -> FileEntry:
        return FileEntry(self.digest.hexdigest(), self.position)

    def __enter__(self) -> "_Writer":
        self.file = self.path.open("wb", buffering=0)
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._put(None)
        self.thread.join()
        self.file.close()
        if self.error is not None and error is None:
            raise self.error

    def align(self, boundary: int) -> int:
        if gap := -self.position % boundary:
            self._write(memoryview(bytes(gap)))
        return self.position

    def write(self, tensor: Tensor) -> None:
        # numpy has no bfloat16: the bytes are what is written
        self._write(tensor.reshape(-1).view(torch.uint8).numpy().data)

    def _write(self, data: memoryview) -> None:
        if self.error is not None:
            raise self.error
        self.position += len(data)
        self._put(data)

    def _put(self, data: memoryview | None) -> None:
        while self.thread.is_alive():
            try:
                self.queue.put(data, timeout=0.1)
                return
            except queue.Full:
                continue

    def _run(self) -> None:
        try:
            while (data := self.queue.get()) is not None:
                self.digest.update(data)
                while len(data):
                    data = data[self.file.write(data) :]
        except BaseException as error:
            self.error = error


def write_graph(model: ir.Model, path: Path) -> None:
    """Write the graph; its weights stay where they are."""
    ir.save(model, path)
