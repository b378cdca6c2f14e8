"""An adapter's files as parts by module: every tensor has its place, and no module of the config is missing."""

from collections.abc import Mapping
from dataclasses import dataclass

from ...artifact import Task
from ...errors import CheckpointError, UnsupportedError
from ...files.foreign_format import ADAPTER_FILE, MLX_ADAPTER_FILE
from ..dtypes import SAFETENSORS_DTYPES
from ..storage.safetensors_files import read_header
from .config import AdapterConfig, read_config
from .given import AdapterFolder
from .names import HEADS, MATRICES, PARAMETERS, PartName, read_names, trunk_of
from .terms import Stored

REPLACED = ("weight", "bias")
"""The parts that take the place of a tensor of the base."""


@dataclass(frozen=True)
class Parts:
    """An opened adapter.

    Args:
        modules: the parts of each module, by its path in the trunk or the head's name.
        trunk: what precedes the trunk's modules in the class that was trained.
    """

    adapter: AdapterFolder
    config: AdapterConfig
    modules: Mapping[str, Mapping[str, Stored]]
    trunk: str

    @property
    def label(self) -> str:
        """The adapter's name in messages."""
        return str(self.adapter.folder)

    def key(self, relative: str) -> str:
        """Return a module's path in the class that was trained, which the config's patterns match."""
        return relative if relative in HEADS else self.trunk + relative


def read_parts(adapter: AdapterFolder) -> Parts:
    """Read an adapter's config and the header of its weights.

    Raises:
        CheckpointError: a file is missing or damaged, or both contradict each other.
        UnsupportedError: it is not merged.
    """
    config = read_config(adapter.folder)
    file = adapter.folder / ADAPTER_FILE
    if not file.exists():
        pickles = sorted(path.name for path in adapter.folder.glob("adapter_model*") if path.suffix in (".bin", ".pt"))
        if pickles:
            raise UnsupportedError(
                f"{adapter.folder}: {pickles[0]} is a pickle, which can run any code when opened, and is not read; "
                "save the adapter again with peft (save_pretrained(..., safe_serialization=True))"
            )
        mlx = f" ({MLX_ADAPTER_FILE} is that of mlx-lm)" if (adapter.folder / MLX_ADAPTER_FILE).exists() else ""
        raise CheckpointError(f"{adapter.folder} has no {ADAPTER_FILE}{mlx}; fetch the adapter's weights")
    header = read_header(file)
    if not header:
        raise CheckpointError(f"{file} holds no tensors; fetch the adapter again")
    for name, info in header.items():
        if info.dtype not in SAFETENSORS_DTYPES:
            raise UnsupportedError(
                f"{file}: tensor {name[:200]} has dtype {info.dtype}; supported are {', '.join(SAFETENSORS_DTYPES)}"
            )
        if not info.shape or 0 in info.shape:
            raise CheckpointError(
                f"{file}: tensor {name[:200]} has the shape {info.shape}: it is empty, as of a model in shards that "
                "were not gathered; save the adapter again"
            )
    places = read_names(header, str(file))
    modules: dict[str, dict[str, Stored]] = {}
    for name, place in places.items():
        modules.setdefault(place.relative, {})[place.part] = Stored(file, name, header[name].dtype, header[name].shape)
    trunk = _check_one_trunk(places, str(file))
    return Parts(adapter, config, modules, trunk)


def check_targets(parts: Parts, matrices: list[str]) -> None:
    """Check that the adapter has the modules that its config names, and no others, which peft would leave out.

    Args:
        matrices: the modules of the base that an adapter can have, by their paths in the trunk.

    Raises:
        CheckpointError: config and weights contradict each other.
    """
    targets, where = parts.config.targets, parts.config.where
    own = MATRICES | PARAMETERS - {"trainable_tokens_delta"}
    adapted = {module for module, found in parts.modules.items() if not own.isdisjoint(found)}
    if not targets.known:
        return
    for module in sorted(adapted):
        tied = module == "lm_head" and parts.config.tied  # peft adds it to the modules that the config names
        if parts.key(module) not in targets and not tied:
            raise CheckpointError(
                f"{where}: target_modules does not name {parts.key(module)}, which {ADAPTER_FILE} has a change of, and "
                "which peft leaves out; the two files belong to different adapters"
            )
    missing = [module for module in matrices if module not in adapted and parts.key(module) in targets]
    if missing:
        raise CheckpointError(
            f"{where}: target_modules names {len(missing)} modules that {ADAPTER_FILE} has no tensors of, first "
            f"{parts.key(missing[0])}; the file is not whole: fetch the adapter again"
        )


def check_saved(parts: Parts, modules: list[str]) -> None:
    """Check that the adapter has the tensors of ``modules_to_save``; ``modules`` are the base's, by their paths.

    Raises:
        CheckpointError: one is missing.
    """
    saved = parts.config.modules_to_save
    for module in modules:
        named = any(module == one or module.endswith(f".{one}") for one in saved)
        if named and "weight" not in parts.modules.get(module, {}):
            raise CheckpointError(
                f"{parts.config.where}: modules_to_save names {module}, and {ADAPTER_FILE} has no weight of it; the "
                "file is not whole: fetch the adapter again"
            )


def task_of(parts: Parts, task: Task) -> Task:
    """Return the task of the model with the adapter, over a base for ``task``.

    Raises:
        UnsupportedError: the adapter is for another task than the base, or has a head and no task.
    """
    config, label = parts.config, parts.label
    heads = {"score": ("text-classification", "token-classification"), "qa_outputs": ("question-answering",)}
    if config.task is None:
        for head, tasks in heads.items():
            if head in parts.modules and task not in tasks:
                raise UnsupportedError(
                    f"{label} has the head {head}, the base is for {task}, and task_type in {config.where} is null; "
                    "write the task there (SEQ_CLS, TOKEN_CLS or QUESTION_ANS)"
                )
        return task
    if config.task == "text-generation":
        if task in ("text-generation", "feature-extraction"):
            return task
        raise UnsupportedError(
            f"{label} was trained for text-generation (task_type CAUSAL_LM), and the base is for {task}; give the base "
            "that it was trained on"
        )
    return config.task


def _check_one_trunk(places: Mapping[str, PartName], where: str) -> str:
    trunk = trunk_of(places)
    for place in places.values():
        if place.relative not in HEADS and place.module != trunk + place.relative:
            raise CheckpointError(
                f"{where}: modules are both under {trunk or 'nothing'} and elsewhere ({place.module[:200]}); the file "
                "holds several adapters"
            )
    return trunk
