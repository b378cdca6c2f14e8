"""A checkpoint folder in Hugging Face layout: its config, and its tensors, read one at a time.

A file is mapped only while one tensor of it is read. A mapping that stays open counts every page it ever touched as
resident memory, which for a model is the whole model.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..artifact import FORBIDDEN, TEMPLATE_FOLDER, Attention, Task
from ..errors import CheckpointError, UnsupportedError
from ..files.foreign_format import ADAPTER, foreign_format
from ..files.json_fields import JSONFields, shown
from ..files.json_file import read_object
from ..files.library_errors import library_errors
from ..files.regular_file import check_regular
from ..files.tokenizer_file import VOCABULARY
from .config import ConfigReader, ModelConfig
from .family import CLASS_SUFFIXES, FAMILIES, Family, architectures
from .heads import check_known
from .parameters import LM_HEAD, load_module
from .reading.adapter import adapter_files, check_adapter
from .reading.custom_code import check_custom_code, custom_code
from .reading.layout import read_layout
from .reading.options import ReadOptions
from .weight_source import CHUNK_BYTES, TensorInfo, find_trunk, row_ranges

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LICENSES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "NOTICE.md", "NOTICE.txt")
"""The terms of a model, which every copy of it must carry along."""

# Copied as they are into an artifact; patterns of what a hub download fetches.
COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    *LICENSES,
)
CARD = "README.md"
PATTERNS = (*COMPANIONS, CARD, *VOCABULARY, f"{TEMPLATE_FOLDER}/*.jinja", "*.safetensors", INDEX, ADAPTER)


def companions(folder: Path) -> list[str]:
    """Return the names of the files beside the weights that an artifact takes over, those that ``folder`` has.

    Raises:
        CheckpointError: a chat template has a name that an artifact cannot have.
    """
    named = sorted(path.name for path in (folder / TEMPLATE_FOLDER).glob("*.jinja") if path.is_file())
    for name in named:
        if any(character in name for character in FORBIDDEN):
            raise CheckpointError(f"{folder / TEMPLATE_FOLDER / name}: its name has a \\ or a colon; rename the file")
    return [
        *(name for name in COMPANIONS if (folder / name).is_file()),
        *(f"{TEMPLATE_FOLDER}/{name}" for name in named),
    ]


class Checkpoint:
    """An opened folder: ``config``, the ``task`` its architecture is for, and ``tensors`` by name (headers only).

    ``custom_code`` names the checkpoint's own code, which is not run, and ``adapter`` the files of an adapter, which is
    left out. ``notes`` say, a sentence each, how the files were read where they leave that open.
    """

    def __init__(self, folder: str | Path, options: ReadOptions = ReadOptions()) -> None:  # noqa: B008 - it is frozen
        """Read ``config.json`` and the headers of the weight files.

        Args:
            folder: in Hugging Face layout.
            options: what the files leave open.

        Raises:
            CheckpointError: a file or a key is missing, truncated, or contradicts another.
            UnsupportedError: the architecture, the config or the format of the weights is not supported.
        """
        self.folder = Path(folder)
        if (foreign := foreign_format(self.folder)) is not None:
            raise UnsupportedError(f"{self.folder} {foreign}")
        self.adapter = adapter_files(self.folder)
        notes = [check_adapter(self.adapter, self.folder, options)]
        reader = ConfigReader.open(self.folder)
        self.task: Task
        self.architecture, family, self.task = _architecture(reader)
        self.config = with_attention(family.parse(reader), options.attention, reader.where)
        self.custom_code = custom_code(reader.get("auto_map"), reader.where)
        notes += [check_custom_code(self.custom_code, options, reader.where), _note_on_context(self.config)]
        self.files = _weight_files(self.folder)
        stored, note = _headers(self.files, _index(self.folder), self.config.tie_word_embeddings)
        layout = read_layout(stored, self.folder)
        self.tensors = {name: stored[original] for name, original in layout.stored.items()}
        self._stored_names = layout.stored
        self.trunk_prefix = find_trunk(self.tensors, self.folder)
        wide = any(info.dtype == "F64" for info in stored.values())
        notes += [note, *layout.notes, "float64 weights are read as float32" if wide else None]
        self.notes = tuple(note for note in notes if note is not None)

    def tensor(self, name: str) -> Tensor:
        """Return a whole tensor in its stored dtype, in memory of its own."""
        with self._open(name) as (file, stored):
            tensor: Tensor = file.get_tensor(stored).clone()
            return tensor

    def rows(self, name: str, chunk_bytes: int = CHUNK_BYTES) -> Iterable[tuple[int, Tensor]]:
        """Yield a tensor in chunks of whole rows, as (first row, chunk).

        The file is opened again for each chunk: only then is a chunk's memory released before the next.
        """
        for start, stop in row_ranges(self.tensors[name], chunk_bytes):
            yield start, self._rows(name, start, stop)

    def _rows(self, name: str, start: int, stop: int) -> Tensor:
        with self._open(name) as (file, stored):
            chunk: Tensor = file.get_slice(stored)[start:stop]
            return chunk

    def columns(self, name: str, start: int, stop: int) -> Tensor:
        """Return the columns ``start`` to ``stop`` of a matrix."""
        with self._open(name) as (file, stored):
            chunk: Tensor = file.get_slice(stored)[:, start:stop]
            return chunk

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[Any, str]]:
        """Open the file of a tensor; yield it with the tensor's name there."""
        file = self.tensors[name].file
        remedy = "fetch the file again"
        with (
            library_errors(lambda why: CheckpointError(f"{file}: tensor {name} cannot be read ({why}); {remedy}")),
            safe_open(file, "pt") as opened,
        ):
            yield opened, self._stored_names[name]

    def load(self, task: Task | None = None, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Return the native module with all of its weights in memory; errors as ``load_module``."""
        return load_module(self, task, dtype)


def with_attention(config: ModelConfig, attention: Attention | None, where: str) -> ModelConfig:
    """Return the config with the attention that the caller gives, if any.

    Raises:
        UnsupportedError: config.json says otherwise, or it has sliding windows.
    """
    if attention is not None:
        if config.is_causal is not None and config.is_causal != (attention == "causal"):
            raise UnsupportedError(
                f"{where}: is_causal = {str(config.is_causal).lower()} contradicts --attention {attention}; leave the "
                "option out, or mend config.json"
            )
        config = replace(config, is_causal=attention == "causal")
    if not config.causal and any(window is not None for window in config.layer_windows):
        raise UnsupportedError(
            f"{where}: bidirectional attention with sliding windows is not supported, since implementations differ in "
            "the width of such a window; use a checkpoint without sliding layers"
        )
    return config


def _note_on_context(config: ModelConfig) -> str | None:
    if config.dual_chunk_length is None:
        return None
    return (
        f"dual_chunk_attention_config: dual chunk attention equals plain attention up to {config.dual_chunk_length:,} "
        f"tokens, and the context is {config.context_length:,}"
    )


def load(
    folder: str | Path,
    task: Task | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    options: ReadOptions = ReadOptions(),  # noqa: B008 - it is frozen
) -> nn.Module:
    """Return the native module of a checkpoint folder with its weights, in evaluation mode.

    Args:
        folder: in Hugging Face layout.
        task: which head; None for the one that the checkpoint's architecture names. ``feature-extraction`` is the bare
            model, from any checkpoint.
        dtype: of the parameters.
        options: what the files leave open.

    Raises:
        CheckpointError, UnsupportedError: as ``Checkpoint`` and ``load_module``.
        UsageError: an unknown task.
    """
    if task is not None:
        check_known(task)
    return Checkpoint(folder, options).load(task, dtype)


def _architecture(reader: ConfigReader) -> tuple[str, Family, Task]:
    names = reader.get("architectures") or []
    name = names[0] if isinstance(names, list) and names else None
    model_type = reader.get("model_type")
    if name is None and isinstance(model_type, str) and model_type in FAMILIES:
        name = FAMILIES[model_type].class_prefix + CLASS_SUFFIXES["text-generation"]
    supported = architectures()
    if not isinstance(name, str) or name not in supported:
        raise UnsupportedError(
            f"{reader.where}: architecture {shown(name)} (model_type {shown(model_type)}) is not supported; "
            f"supported are {', '.join(supported)}"
        )
    family, task = supported[name]
    if model_type not in (None, family.name):
        raise reader.bad("model_type", f"{family.name}, to go with the architecture {name}")
    return name, family, task


def _index(folder: Path) -> dict[str, str] | None:
    """Read ``weight_map`` of the index, tensor name to file name; None for a checkpoint of one file."""
    path = folder / INDEX
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


def _weight_files(folder: Path) -> tuple[Path, ...]:
    index = _index(folder)
    if index is not None:
        files = tuple(folder / name for name in sorted(set(index.values())))
        for file in files:
            try:
                check_regular(file)
            except FileNotFoundError:
                raise CheckpointError(f"{file} is missing, {INDEX} names it; fetch the checkpoint again") from None
            except ValueError as error:
                raise CheckpointError(f"{error}, {INDEX} names it; fetch the checkpoint again") from None
        return files
    if (folder / SINGLE).exists():
        return (folder / SINGLE,)
    pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(pattern))
    if pickles:
        raise UnsupportedError(
            f"{folder}: {pickles[0]} is a pickle, which can run any code when opened, and is not read; convert it to "
            "safetensors first (transformers: from_pretrained(...).save_pretrained(..., safe_serialization=True))"
        )
    raise CheckpointError(f"{folder} has neither {SINGLE} nor {INDEX}; fetch the checkpoint's weights")


def _headers(
    files: tuple[Path, ...], index: dict[str, str] | None, tied: bool
) -> tuple[dict[str, TensorInfo], str | None]:
    """Return the tensors by their names in the files, and a note on a tied head that only the index names."""
    note = None
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        for name, info in _header(file).items():
            if name in tensors:
                raise CheckpointError(
                    f"{file}: tensor {name} is in {tensors[name].file.name} too; fetch the checkpoint again"
                )
            tensors[name] = info
    for name, file_name in (index or {}).items():
        if tied and name not in tensors and (name == LM_HEAD or name.endswith(f".{LM_HEAD}")):
            note = f"{INDEX} names {name}, which no file holds: the embedding is the head"
        elif name not in tensors or tensors[name].file.name != file_name:
            raise CheckpointError(
                f"{files[0].parent / INDEX}: tensor {name} should be in {file_name} and is not; "
                "fetch the checkpoint again"
            )
    return tensors, note


def _header(file: Path) -> dict[str, TensorInfo]:
    """Read the header of one weight file."""

    def refusal(reason: str) -> CheckpointError:
        return CheckpointError(
            f"{file} is not a whole safetensors file ({reason}); it may be truncated: fetch it again"
        )

    with library_errors(refusal):
        check_regular(file)
        with safe_open(file, "pt") as opened:
            stored = {name: opened.get_slice(name) for name in sorted(opened.keys())}
            return {name: TensorInfo(file, one.get_dtype(), tuple(one.get_shape())) for name, one in stored.items()}
