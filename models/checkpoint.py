"""A checkpoint folder in Hugging Face layout: its config, and its tensors, read one at a time.

A file is mapped only while one tensor of it is read. A mapping that stays open counts every page it ever touched as
resident memory, which for a model is the whole model.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..artifact import Task
from ..errors import CheckpointError, UnsupportedError
from .config import ConfigReader
from .family import CLASS_SUFFIXES, FAMILIES, Family, architectures
from .heads import TRUNK_ATTRIBUTE, CausalLM, build, trunk
from .rope import RotaryEmbedding

DTYPES: Mapping[str, torch.dtype] = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TRUNK_PREFIXES = ("model.", "transformer.", "")

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
# Copied as they are into an artifact; patterns of what a hub download fetches.
COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
PATTERNS = (*COMPANIONS, "*.safetensors", INDEX)


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies, its dtype in safetensors' words, and its shape."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


class Checkpoint:
    """An opened folder: ``config``, the ``task`` its architecture is for, and ``tensors`` by name (headers only)."""

    def __init__(self, folder: str | Path) -> None:
        """Read ``config.json`` and the headers of the weight files.

        Raises:
            CheckpointError: something is missing, truncated, or contradicts something else.
            UnsupportedError: another architecture, a config that is not expressed here, weights that are no floats.
        """
        self.folder = Path(folder)
        reader = ConfigReader.open(self.folder)
        self.architecture, family, self.task = _architecture(reader)
        self.config = family.parse(reader)
        self.files, self.tensors = self._find()
        self.trunk_prefix = find_trunk(self.tensors, self.folder)

    def _find(self) -> tuple[tuple[Path, ...], dict[str, TensorInfo]]:
        """The weight files, and what they hold."""
        files = _weight_files(self.folder)
        return files, _headers(files, _index(self.folder))

    def name_of(self, parameter: str, task: Task) -> str:
        """The checkpoint's name of a parameter of ``build(config, task)``, whatever prefix the trunk has there."""
        attribute = TRUNK_ATTRIBUTE.get(task)
        own = f"{attribute}." if attribute else ""
        if not parameter.startswith(own):
            return parameter  # the head's
        return self.trunk_prefix + parameter.removeprefix(own)

    def check(self, task: Task, parameters: Mapping[str, tuple[int, ...]]) -> None:
        """Compare the tensors with what ``build(config, task)`` needs: ``parameters``, names and shapes.

        Raises:
            CheckpointError: tensors are missing, surplus, of another shape, or tied on paper and different on disk.
            UnsupportedError: a tensor that is no float.
        """
        wanted = {self.name_of(name, task): shape for name, shape in parameters.items()}
        tied = self.config.tie_word_embeddings and "lm_head.weight" in wanted
        if tied and "lm_head.weight" not in self.tensors:
            del wanted["lm_head.weight"]  # the embedding stands for it
        missing = [name for name in wanted if name not in self.tensors]
        if missing:
            raise CheckpointError(
                f"{self.folder}: {_missing(len(missing))}, first {missing[0]}, which {task} with this "
                f"config.json needs; {_remedy(missing[0], task, self.task)}"
            )
        for name, shape in wanted.items():
            info = self.tensors[name]
            if info.shape != shape:
                raise CheckpointError(
                    f"{info.file}: tensor {name} has shape {info.shape}, expected {shape} from config.json; "
                    "the config and the weights belong to different models"
                )
            if info.dtype not in DTYPES:
                raise UnsupportedError(
                    f"{info.file}: tensor {name} has dtype {info.dtype}; supported are {', '.join(DTYPES)}: "
                    "use the checkpoint before it was quantized"
                )
        surplus = [name for name in self.tensors if name not in wanted and not self._known_surplus(name, task)]
        if surplus:
            raise CheckpointError(
                f"{self.tensors[surplus[0]].file}: {task} with this config.json has no place for {len(surplus)} of its "
                f"tensors, first {surplus[0]}; the config and the weights belong to different models"
            )
        if tied and "lm_head.weight" in wanted:
            self._check_tied()

    def _known_surplus(self, name: str, task: Task) -> bool:
        if name.endswith("rotary_emb.inv_freq"):  # older checkpoints stored what the config says
            return True
        if name == "lm_head.weight" and (self.config.tie_word_embeddings or self.task == "text-generation" != task):
            return True
        heads = ("score.weight", "score.bias", "qa_outputs.weight", "qa_outputs.bias")
        return task != self.task and name in heads  # another head, left out on request

    def _check_tied(self) -> None:
        embedding = self.trunk_prefix + "embed_tokens.weight"
        head = self.tensors["lm_head.weight"]
        same = head.dtype == self.tensors[embedding].dtype and all(
            torch.equal(ours, theirs)
            for (_, ours), (_, theirs) in zip(self.rows(embedding), self.rows("lm_head.weight"), strict=True)
        )
        if not same:
            raise CheckpointError(
                f"{head.file}: lm_head.weight differs from {embedding}, although config.json has "
                "tie_word_embeddings = true; set it to false if the head is meant to be its own"
            )

    def tensor(self, name: str) -> Tensor:
        """One whole tensor in its stored dtype, in memory of its own."""
        with self._open(name) as file:
            tensor: Tensor = file.get_tensor(name).clone()
            return tensor

    def rows(self, name: str, chunk_bytes: int = 1 << 26) -> Iterable[tuple[int, Tensor]]:
        """A tensor in pieces of whole rows, as (first row, piece), so that no piece is much over ``chunk_bytes``.

        The file is opened again for each piece: only then is a piece's memory given back before the next.
        """
        info = self.tensors[name]
        row = max(1, torch.Size(info.shape[1:]).numel() * DTYPES[info.dtype].itemsize)
        step = max(1, chunk_bytes // row)
        for start in range(0, info.shape[0], step):
            yield start, self._rows(name, start, min(start + step, info.shape[0]))

    def _rows(self, name: str, start: int, stop: int) -> Tensor:
        with self._open(name) as file:
            piece: Tensor = file.get_slice(name)[start:stop]
            return piece

    def columns(self, name: str, start: int, stop: int) -> Tensor:
        """The columns ``start`` to ``stop`` of a matrix."""
        with self._open(name) as file:
            piece: Tensor = file.get_slice(name)[:, start:stop]
            return piece

    @contextmanager
    def _open(self, name: str) -> Any:
        file = self.tensors[name].file
        try:
            with safe_open(file, "pt") as opened:
                yield opened
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: tensor {name} cannot be read ({error}); fetch the file again") from None

    def load(self, task: Task | None = None, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The whole native module in memory, for comparison and training; the exporter never calls this."""
        task = task or self.task
        with torch.device("meta"):
            module = build(self.config, task)
        self.check(task, {name: tuple(p.shape) for name, p in module.state_dict().items()})
        own = [name for name in module.state_dict() if not (self.config.tie_word_embeddings and "lm_head" in name)]
        state = {name: self.tensor(self.name_of(name, task)).to(dtype) for name in own}
        module.load_state_dict(state, strict=False, assign=True)
        trunk(module, task).rotary_emb = RotaryEmbedding(
            self.config.rope, self.config.head_dim
        )  # it has no weights to load
        if isinstance(module, CausalLM) and self.config.tie_word_embeddings:
            module.lm_head.weight = module.model.embed_tokens.weight
        return module.eval()


def find_trunk(tensors: Iterable[str], folder: Path) -> str:
    """The prefix of the bare model's tensors: its embedding tells.

    Raises:
        CheckpointError: there is none.
    """
    names = set(tensors)
    for prefix in TRUNK_PREFIXES:
        if f"{prefix}embed_tokens.weight" in names:
            return prefix
    raise CheckpointError(
        f"{folder}: no tensor model.embed_tokens.weight, transformer.embed_tokens.weight or "
        "embed_tokens.weight; the weight files belong to another architecture or are incomplete"
    )


def _missing(count: int) -> str:
    return "1 tensor is missing" if count == 1 else f"{count} tensors are missing"


def _remedy(name: str, task: Task, stored: Task) -> str:
    if name == "lm_head.weight":
        return "set tie_word_embeddings to true if the head is the embedding"
    if task != stored:
        return f"the checkpoint is for {stored}: leave out --task, or give one with this head"
    return "the config and the weights belong to different models, or a file is incomplete"


def _architecture(reader: ConfigReader) -> tuple[str, Family, Task]:
    names = reader.get("architectures") or []
    name = names[0] if isinstance(names, list) and names else None
    model_type = reader.get("model_type")
    if name is None and isinstance(model_type, str) and model_type in FAMILIES:
        name = FAMILIES[model_type].class_prefix + CLASS_SUFFIXES["text-generation"]
    supported = architectures()
    if not isinstance(name, str) or name not in supported:
        raise UnsupportedError(
            f"{reader.where}: architecture {name!r} (model_type {model_type!r}) is not supported; "
            f"supported are {', '.join(supported)}"
        )
    family, task = supported[name]
    if model_type not in (None, family.name):
        raise reader.bad("model_type", f"{family.name}, to go with the architecture {name}")
    return name, family, task


def _index(folder: Path) -> dict[str, str] | None:
    """``weight_map`` of the index, tensor name to file name; None for a checkpoint of one file."""
    path = folder / INDEX
    if (folder / SINGLE).exists() or not path.exists():
        return None
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        assert isinstance(weight_map, dict)
    except (OSError, ValueError, KeyError, TypeError, AssertionError):
        raise CheckpointError(f"{path} is not a safetensors index with a weight_map; fetch it again") from None
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or Path(name).name != name or "\\" in name or name in ("", ".", ".."):
            raise CheckpointError(
                f"{path}: weight_map places {tensor} in {name!r}, outside the folder; "
                "only plain file names beside the index are read"
            )
    return weight_map


def _weight_files(folder: Path) -> tuple[Path, ...]:
    index = _index(folder)
    if index is not None:
        files = tuple(folder / name for name in sorted(set(index.values())))
        for file in files:
            if not file.exists():
                raise CheckpointError(f"{file} is missing, {INDEX} names it; fetch the checkpoint again")
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


def _headers(files: tuple[Path, ...], index: dict[str, str] | None) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        try:
            with safe_open(file, "pt") as opened:
                for name in sorted(opened.keys()):
                    if name in tensors:
                        raise CheckpointError(
                            f"{file}: tensor {name} is in {tensors[name].file.name} too; fetch the checkpoint again"
                        )
                    piece = opened.get_slice(name)
                    tensors[name] = TensorInfo(file, piece.get_dtype(), tuple(piece.get_shape()))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{file} is not a whole safetensors file ({error}); it may be truncated: fetch it again"
            ) from None
    for name, file_name in (index or {}).items():
        if name not in tensors or tensors[name].file.name != file_name:
            raise CheckpointError(
                f"{files[0].parent / INDEX}: tensor {name} should be in {file_name} and is not; "
                "fetch the checkpoint again"
            )
    return tensors
