"""A checkpoint, a folder in Hugging Face layout or a GGUF file: its config, and its tensors, read one at a time."""

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..artifact import FORBIDDEN, TEMPLATE_FOLDER, Attention, Task
from ..errors import CheckpointError, UnsupportedError
from ..files.foreign_format import ADAPTER, foreign_format
from ..files.gguf_files import gguf_file
from ..files.json_fields import JSONFields, shown
from ..files.tokenizer_file import VOCABULARY
from .adapters.merge import Base
from .adapters.merged import Merged
from .adapters.text import FILES as TEXT_FILES
from .adapters.text import text_files, text_folder
from .config import ConfigReader, ModelConfig
from .family import CLASS_SUFFIXES, FAMILIES, Family, architectures
from .gguf.opening import open_gguf, remove
from .heads import check_known
from .loading.parameters import load_module
from .quantized.detect import OWN_FILES, read_quantized
from .quantized.weights import QuantizedWeight, QuantizedWeights
from .reading.adapter import adapter_files, check_adapter
from .reading.custom_code import check_custom_code, custom_code
from .reading.layout import read_layout
from .reading.options import ReadOptions
from .storage.decoded import Decoded
from .storage.fused_experts import FusedExperts
from .storage.safetensors_files import INDEXES, SafetensorsFiles
from .storage.store import Renamed, TensorStore
from .weight_source import CHUNK_BYTES, TensorInfo, find_trunk, row_ranges

LICENSES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "NOTICE.md", "NOTICE.txt")
"""The terms of a model, which every copy of it must carry along."""

CONFIG = "config.json"

# Copied as they are into an artifact; patterns of what a hub download fetches.
COMPANIONS = (
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    *LICENSES,
)
CARD = "README.md"
PATTERNS = (*COMPANIONS, CARD, *VOCABULARY, f"{TEMPLATE_FOLDER}/*.jinja", "*.safetensors", INDEXES, ADAPTER, *OWN_FILES)


def companions(folder: Path, text: Path) -> dict[str, Path]:
    """Return the files beside the weights that an artifact takes over, by their names.

    Args:
        folder: the checkpoint's.
        text: the folder whose tokenizer and chat templates count.

    Raises:
        CheckpointError: a chat template has a name that an artifact cannot have.
    """
    own = text_files(text)
    for name in own:
        if any(character in name.removeprefix(f"{TEMPLATE_FOLDER}/") for character in FORBIDDEN):
            raise CheckpointError(f"{text / name}: its name has a \\ or a colon; rename the file")
    others = [name for name in COMPANIONS if name not in TEXT_FILES and (folder / name).is_file()]
    copied = [name for name in own if name in COMPANIONS or name not in TEXT_FILES]
    return {name: folder / name for name in others} | {name: text / name for name in copied}


class Checkpoint:
    """An opened folder or GGUF file: ``config``, the ``task`` of its architecture, ``tensors`` by name (headers only).

    ``folder`` has config.json and the other companions of the weights: for a GGUF file a temporary one, made of its
    metadata, which lasts as long as this object. ``files`` hold the weights; ``config_file`` is None for a GGUF file.

    ``custom_code`` names the checkpoint's own code, which is not run, and ``adapter`` the files of an adapter, which is
    left out. ``notes`` say, a sentence each, how the files were read where they leave that open. ``quantized`` has the
    weights that are stored quantized; as ``tensors`` they are read in float32.

    With adapters, ``tensors`` are those of the merged model: ``changed_config`` has the keys of config.json that are
    others in it, ``text_folder`` its tokenizer, and ``merged_quantized`` names the weights that were stored quantized
    and are float32 with the adapters in them.
    """

    def __init__(self, folder: str | Path, options: ReadOptions = ReadOptions()) -> None:  # noqa: B008 - it is frozen
        """Read ``config.json`` and the headers of the weight files.

        Args:
            folder: in Hugging Face layout, or with one GGUF file; or a GGUF file.
            options: what the files leave open.

        Raises:
            CheckpointError: a file or a key is missing, truncated, or contradicts another.
            UnsupportedError: the architecture, the config or the format of the weights is not supported.
        """
        self.folder = Path(folder)
        if (foreign := foreign_format(self.folder)) is not None:
            raise UnsupportedError(f"{self.folder} {foreign}")
        file = gguf_file(self.folder)
        gguf = None if file is None else open_gguf(file)
        if gguf is not None:
            self.folder = gguf.folder
            weakref.finalize(self, remove, gguf.folder)
        merged_too = any(one.folder.resolve() == self.folder.resolve() for one in options.adapters)
        self.adapter = None if merged_too else adapter_files(self.folder)
        notes = [check_adapter(self.adapter, self.folder, options)]
        reader = ConfigReader.open(self.folder)
        if gguf is not None:
            reader = ConfigReader(reader.values, f"{file}, read as config.json")
        self.task: Task
        self.architecture, family, self.task = architecture_of(reader)
        self.config = with_attention(family.parse(reader), options.attention, reader.where)
        self.custom_code = custom_code(reader.get("auto_map"), reader.where)
        notes += [check_custom_code(self.custom_code, options, reader.where), _note_on_context(self.config)]
        store: TensorStore
        quantized: QuantizedWeights | None
        self.config_file: Path | None
        if gguf is not None:
            self.files, self.config_file = gguf.files, None
            store, quantized = gguf.tensors, gguf.quantized
            notes += gguf.notes
        else:
            files = SafetensorsFiles(self.folder, tied=self.config.tie_word_embeddings)
            self.files, self.config_file = files.files, self.folder / CONFIG
            stored = FusedExperts(files, self.config)
            layout = read_layout(stored.tensors, self.folder)
            store = Renamed(stored, layout.stored)
            quantized = read_quantized(JSONFields(reader.values, reader.where), store, self.folder)
            notes += [*files.notes, stored.note, *layout.notes]
        wide = any(info.dtype == "F64" for info in store.tensors.values())
        self.quantized: Mapping[str, QuantizedWeight] = {}
        if quantized is not None:
            store, self.quantized = Decoded(store, quantized), quantized.weights
            notes += quantized.notes
        self.changed_config: Mapping[str, Any] = {}
        self.text_folder = self.folder
        self.merged_quantized: tuple[str, ...] = ()
        if options.adapters:
            base = Base(store, find_trunk(store.tensors, self.folder), self.task, self.config.tie_word_embeddings)
            store = merged = Merged(base, options.adapters, reader.values, family, len(self.config.labels))
            self.changed_config = merged.config
            changed = ConfigReader({**reader.values, **merged.config}, reader.where)
            self.architecture, family, self.task = architecture_of(changed)
            self.config = with_attention(family.parse(changed), options.attention, reader.where)
            self.merged_quantized = tuple(name for name in self.quantized if name in merged.changes)
            self.quantized = {name: one for name, one in self.quantized.items() if name not in merged.changes}
            self.text_folder, text_note = text_folder(self.folder, options.adapters)
            notes += [*merged.notes, text_note]
        self._store = store
        self.tensors: Mapping[str, TensorInfo] = store.tensors
        self.trunk_prefix = find_trunk(self.tensors, self.folder)
        notes.append("float64 weights are read as float32" if wide else None)
        self.notes = tuple(note for note in notes if note is not None)

    def tensor(self, name: str) -> Tensor:
        """Return a whole tensor in memory of its own, in its stored dtype; a quantized one in float32."""
        return self._store.read(name)

    def rows(self, name: str, chunk_bytes: int = CHUNK_BYTES) -> Iterable[tuple[int, Tensor]]:
        """Yield a tensor in chunks of whole rows, as (first row, chunk).

        The file is opened again for each chunk: only then is a chunk's memory released before the next.
        """
        for start, stop in row_ranges(self.tensors[name], chunk_bytes):
            yield start, self._store.read(name, range(start, stop))

    def columns(self, name: str, start: int, stop: int) -> Tensor:
        """Return the columns ``start`` to ``stop`` of a matrix."""
        return self._store.read(name, columns=range(start, stop))

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


def architecture_of(reader: ConfigReader) -> tuple[str, Family, Task]:
    """Return the architecture that a config names, its family and its task.

    Raises:
        UnsupportedError: it is not supported.
        CheckpointError: the config contradicts itself.
    """
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
