"""Writing an artifact folder: all of it or nothing.

Files are written into a hidden sibling of the destination, which is renamed at the end. Weights go from the checkpoint
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

from ..artifact import MANIFEST, FileEntry, TensorEntry
from ..errors import OutputError, UnsupportedError
from ..models.dtypes import PRECISIONS
from ..models.weight_source import WeightSource
from .graph import ExportGraph
from .signals import deferred_signals
from .weights import Stream, Write

PAGE = 4096
"""The alignment of weights, so that a mapped file can be used in place."""

OLD = "-old"
"""The suffix of a replaced artifact until its successor is in place."""

DTYPES = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT4: torch.uint8,  # recipes give two to a byte
    ir.DataType.UINT4: torch.uint8,
    ir.DataType.INT64: torch.int64,
}
STORED_PRECISIONS: Mapping[torch.dtype, str] = {**PRECISIONS, torch.uint8: "uint8", torch.int64: "int64"}


@contextmanager
def staged(out: Path, *, force: bool) -> Iterator[Path]:
    """Make a folder that becomes ``out`` when the block ends, and is removed when the block raises.

    Where ``out`` is a link, it stays one, and the folder that it leads to is made or replaced.

    Raises:
        OutputError: ``out`` has content and ``force`` is false, or is not an artifact; or the disk is full or not
            writable.
    """
    shown, out = out, _destination(out)
    prefix = f".{out.name}.intaglio-"
    _clear_abandoned(out, prefix)
    empty = out.is_dir() and not any(out.iterdir())
    if out.exists() and not empty and not force:
        raise OutputError(f"{shown} exists; choose another place, or replace it with --force")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{shown} is a file; an artifact is a folder: choose another place")
    if out.exists() and not empty and not (out / MANIFEST).exists():
        raise OutputError(f"{shown} holds something else than an artifact and is not replaced; choose another place")
    new_parents = [parent for parent in out.parents if not parent.exists()]
    folder = out.parent / f"{prefix}{os.getpid()}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise _explained(error, shown) from None
    try:
        yield folder
        with deferred_signals():
            _replace(out, folder)
    except OSError as error:
        raise _explained(error, shown) from error
    finally:
        with deferred_signals():
            shutil.rmtree(folder, ignore_errors=True)
        if not out.exists():
            with suppress(OSError):  # not empty where layers are kept for --resume
                for parent in new_parents:
                    parent.rmdir()


def _destination(out: Path) -> Path:
    """Return the absolute path to write, behind a link at ``out`` itself.

    Raises:
        OutputError: the link leads to itself.
    """
    if not out.is_symlink():
        return out.absolute()
    try:
        return out.resolve()
    except (OSError, RuntimeError):
        raise OutputError(f"{out} is a link that leads to itself; remove it, or choose another place") from None


def _replace(out: Path, folder: Path) -> None:
    """Rename ``folder`` to ``out``; the old one is removed only after that, and restored if renaming fails."""
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
    """Remove the folders of killed exports, named after their process ids; restore what they were replacing."""
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
    """Check that the disk has room for ``needed`` bytes.

    Raises:
        OutputError: the disk is too full; the message gives both sizes.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{folder.parent}: the artifact needs {needed / 1e6:,.1f} MB and the disk has {free / 1e6:,.1f} MB free; "
            "free some space or choose another place"
        )


def weight_bytes(graph: ExportGraph) -> int:
    """Return the size of the weights' file, without the gaps between pages."""
    values = graph.model.graph.initializers
    return sum(_numel(stream.shape) * _dtype(values[name]).itemsize for name, stream in graph.streams.items())


def write_weights(
    graph: ExportGraph, checkpoint: WeightSource, path: Path, advance: Callable[[int], None]
) -> tuple[dict[str, TensorEntry], FileEntry]:
    """Write every stream into the file at ``path`` and point the graph's initializers there.

    The graph's place is the same folder, which is made where it is missing.

    A recipe runs once, for its first stream; pieces of its other streams are kept in memory until their turn.

    Args:
        advance: called with the number of bytes of each piece.

    Returns:
        the manifest's entries for the tensors, in the file's order, and for the file.

    Raises:
        UnsupportedError: a weight that the precision cannot hold.
    """
    names: dict[int, dict[str, str]] = {}
    for name, stream in graph.streams.items():
        names.setdefault(id(stream.recipe), {})[stream.key] = name
    entries: dict[str, TensorEntry] = {}
    special: dict[str, TensorEntry] = {}
    waiting: dict[str, list[Tensor]] = {}
    started: set[int] = set()
    path.parent.mkdir(exist_ok=True)
    with _Writer(path) as writer:
        for name, stream in graph.streams.items():
            output = _StreamOutput(writer, name, stream, _dtype(graph.model.graph.initializers[name]), advance)
            recipe = id(stream.recipe)
            if recipe in started:
                output.write_all(waiting.pop(name, []))
            else:
                started.add(recipe)
                own = names[recipe]
                described = stream.recipe.write(checkpoint, _route(own, output, waiting))
                special |= {own[key]: entry for key, entry in described.items()}
            length = output.finish()
            for user in (name, *(alias for alias, original in graph.aliases.items() if original == name)):
                _point(graph.model.graph.initializers[user], output.offset, length, path)
            entries[name] = special.get(name) or output.entry()
    return entries, writer.entry


def _route(names: Mapping[str, str], output: "_StreamOutput", waiting: dict[str, list[Tensor]]) -> Write:
    """Write a recipe's pieces to ``output``; collect those of other streams in ``waiting``.

    Args:
        names: initializers by the key of their stream; pieces of other streams are dropped.
    """

    def write(key: str, piece: Tensor) -> None:
        name = names.get(key)
        if name == output.name:
            output.write(piece)
        elif name is not None:
            waiting.setdefault(name, []).append(piece)

    return write


class _StreamOutput:
    """The range of the file that one stream fills."""

    def __init__(
        self, writer: "_Writer", name: str, stream: Stream, dtype: torch.dtype, advance: Callable[[int], None]
    ) -> None:
        self.writer = writer
        self.name = name
        self.stream = stream
        self.dtype = dtype
        self.advance = advance
        self.offset = writer.align(PAGE)

    def write(self, piece: Tensor) -> None:
        converted = _convert(piece, self.dtype, self.name, self.stream.sources)
        self.writer.write(converted)
        self.advance(converted.numel() * converted.element_size())

    def write_all(self, pieces: list[Tensor]) -> None:
        for piece in pieces:
            self.write(piece)

    def entry(self) -> TensorEntry:
        return TensorEntry(STORED_PRECISIONS[self.dtype], self.stream.shape, self.stream.sources)

    def finish(self) -> int:
        """Check the length; return it in bytes."""
        length, expected = self.writer.position - self.offset, _numel(self.stream.shape) * self.dtype.itemsize
        assert length == expected, f"{self.name}: {length} bytes, expected {expected}"
        return length


def _point(value: ir.Value, offset: int, length: int, path: Path) -> None:
    """Make a range of the weights' file the value of an initializer."""
    assert value.dtype is not None
    assert value.shape is not None
    value.const_value = ir.ExternalTensor(
        path.name, offset, length, value.dtype, shape=value.shape, name=value.name or "", base_dir=path.parent
    )


def _convert(piece: Tensor, dtype: torch.dtype, name: str, sources: tuple[str, ...]) -> Tensor:
    # One pass converts and makes contiguous; .to() and then .contiguous() take three times as long.
    as_it_is = piece.dtype == dtype and piece.is_contiguous()
    converted = piece if as_it_is else torch.empty(piece.shape, dtype=dtype).copy_(piece)
    # Rounding is expected; overflow to infinity is an error.
    narrower = dtype == torch.float16 or piece.dtype == torch.float64
    if narrower and piece.dtype != dtype and converted.isinf().any() and piece.isfinite().all():
        limit, remedy = "fp16's 65504", "export with --precision bf16 or fp32"
        if dtype != torch.float16:
            limit, remedy = "float32's 3.4e38", "the checkpoint is damaged: fetch it again"
        raise UnsupportedError(
            f"{', '.join(sources) or name}: a value of {piece.abs().max().item():.4g} is beyond {limit}; {remedy}"
        )
    return converted


def _dtype(value: ir.Value) -> torch.dtype:
    assert value.dtype is not None
    return DTYPES[value.dtype]


def _numel(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


class _Writer:
    """A file that another thread writes and hashes, a few pieces behind."""

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
        # numpy has no bfloat16, so bytes are written
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
    """Write the graph, which refers to the weights' file."""
    ir.save(model, path)
