"""The tensors in the safetensors files of a folder, one file or several with an index.

A file is mapped only while one tensor of it is read. A mapping that stays open counts every page it ever touched as
resident memory, which for a model is the whole model.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from ...errors import CheckpointError, UnsupportedError
from ...files.json_fields import JSONFields, shown
from ...files.json_file import read_object
from ...files.library_errors import library_errors
from ...files.regular_file import check_regular
from ..weight_source import LM_HEAD, TensorInfo

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
INDEXES = "*.safetensors.index.json"
"""The pattern of an index' name, whichever name the weight files have."""
OLDER_STEMS = ("gptq_model", "awq_model")
"""What names of weight files began with in AutoGPTQ and AutoAWQ; bits and group size came after it."""


class SafetensorsFiles:
    """The tensors by their names in the ``files``; ``notes`` say how they were read where that is open."""

    def __init__(self, folder: Path, *, tied: bool) -> None:
        """Read the headers.

        Args:
            tied: config.json says that the embedding is the head, which the index may then name in vain.

        Raises:
            CheckpointError: a file is missing, truncated, or contradicts the index.
            UnsupportedError: the weights are pickles.
        """
        self.files = _weight_files(folder)
        tensors, note = _headers(self.files, _index(folder), tied)
        self.tensors: Mapping[str, TensorInfo] = tensors
        self.notes = () if note is None else (note,)

    def read(self, name: str, rows: range | None = None, columns: range | None = None) -> Tensor:
        return read_tensor(self.tensors[name].file, name, rows, columns)


def read_tensor(path: Path, name: str, rows: range | None = None, columns: range | None = None) -> Tensor:
    """Return a tensor of a file, or a range of it, in memory of its own.

    Raises:
        CheckpointError: it cannot be read.
    """
    with _opened(path, name) as file:
        if rows is None and columns is None:
            tensor: Tensor = file.get_tensor(name).clone()
            return tensor
        stored = file.get_slice(name)
        down = slice(None) if rows is None else slice(rows.start, rows.stop)
        part: Tensor = stored[down] if columns is None else stored[down, columns.start : columns.stop]
        return part


def read_slice(path: Path, name: str, index: int, rows: range, columns: range | None) -> Tensor:
    """Return rows, and columns, of one matrix of a tensor [X, N, K], in memory of its own.

    Raises:
        CheckpointError: it cannot be read.
    """
    with _opened(path, name) as file:
        across = slice(None) if columns is None else slice(columns.start, columns.stop)
        part: Tensor = file.get_slice(name)[index : index + 1, rows.start : rows.stop, across]
        return part[0]


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Any]:
    remedy = "fetch the file again"
    with (
        library_errors(lambda why: CheckpointError(f"{path}: tensor {name} cannot be read ({why}); {remedy}")),
        safe_open(path, "pt") as opened,
    ):
        yield opened


def _index(folder: Path) -> dict[str, str] | None:
    """Read ``weight_map`` of the index, tensor name to file name; None for a checkpoint of one file."""
    path = _index_path(folder)
    if (folder / SINGLE).exists() or not path.exists():
        return None
    try:
        weight_map = JSONFields(read_object(path), str(path)).fields("weight_map")
    except ValueError as error:
        raise CheckpointError(f"{error}; fetch it again") from None
    if weight_map is None:
        raise CheckpointError(f"{path} is not a safetensors index with a weight_map; fetch it again")
    for tensor, name in weight_map.values.items():
        if not isinstance(name, str) or Path(name).name != name or "\\" in name or name in ("", ".", ".."):
            raise CheckpointError(
                f"{path}: weight_map places {tensor} in {shown(name)}, outside the folder; "
                "only plain file names beside the index are read"
            )
    return dict(weight_map.values)


def _index_path(folder: Path) -> Path:
    """Return the path that the index has, or would have."""
    path = folder / INDEX
    return path if path.exists() else _older(folder, ".safetensors.index.json") or path


def _older(folder: Path, end: str) -> Path | None:
    """Return the only file with an older name."""
    found = [path for stem in OLDER_STEMS for path in folder.glob(f"{stem}*{end}")]
    return found[0] if len(found) == 1 else None


def _weight_files(folder: Path) -> tuple[Path, ...]:
    index = _index(folder)
    name = _index_path(folder).name
    if index is not None:
        files = tuple(folder / name for name in sorted(set(index.values())))
        for file in files:
            try:
                check_regular(file)
            except FileNotFoundError:
                raise CheckpointError(f"{file} is missing, {name} names it; fetch the checkpoint again") from None
            except ValueError as error:
                raise CheckpointError(f"{error}, {name} names it; fetch the checkpoint again") from None
        return files
    if (folder / SINGLE).exists():
        return (folder / SINGLE,)
    if (older := _older(folder, ".safetensors")) is not None:
        return (older,)
    pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(pattern))
    if pickles:
        raise UnsupportedError(
            f"{folder}: {pickles[0]} is a pickle, which can run any code when opened, and is not read; "
            f"{_pickle_remedy(folder)}"
        )
    raise CheckpointError(f"{folder} has neither {SINGLE} nor {INDEX}; fetch the checkpoint's weights")


def _pickle_remedy(folder: Path) -> str:
    """Return what to do about a pickle: one of TorchAO holds Python objects, which no conversion takes along."""
    try:
        quantization = read_object(folder / "config.json").get("quantization_config")
    except (ValueError, OSError):
        quantization = None
    if isinstance(quantization, dict) and quantization.get("quant_method") == "torchao":
        return (
            "export the checkpoint that it was made from, or quantize that again with a torchao and transformers that "
            "save safetensors"
        )
    return (
        "convert it to safetensors first (transformers: from_pretrained(...).save_pretrained(..., "
        "safe_serialization=True))"
    )


def _headers(
    files: tuple[Path, ...], index: dict[str, str] | None, tied: bool
) -> tuple[dict[str, TensorInfo], str | None]:
    """Return the tensors by their names in the files, and a note on a tied head that only the index names."""
    path = _index_path(files[0].parent)
    note = None
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        for name, info in read_header(file).items():
            if name in tensors:
                raise CheckpointError(
                    f"{file}: tensor {name} is in {tensors[name].file.name} too; fetch the checkpoint again"
                )
            tensors[name] = info
    for name, file_name in (index or {}).items():
        if tied and name not in tensors and (name == LM_HEAD or name.endswith(f".{LM_HEAD}")):
            note = f"{path.name} names {name}, which no file holds: the embedding is the head"
        elif name not in tensors or tensors[name].file.name != file_name:
            raise CheckpointError(
                f"{path}: tensor {name} should be in {file_name} and is not; fetch the checkpoint again"
            )
    return tensors, note


def read_header(file: Path) -> dict[str, TensorInfo]:
    """Return the tensors of one weight file.

    Raises:
        CheckpointError: it is missing, or not a whole safetensors file.
    """

    def refusal(reason: str) -> CheckpointError:
        return CheckpointError(
            f"{file} is not a whole safetensors file ({reason}); it may be truncated: fetch it again"
        )

    with library_errors(refusal):
        check_regular(file)
        with safe_open(file, "pt") as opened:
            stored = {name: opened.get_slice(name) for name in sorted(opened.keys())}
            return {name: TensorInfo(file, one.get_dtype(), tuple(one.get_shape())) for name, one in stored.items()}
