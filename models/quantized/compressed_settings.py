"""The settings of compressed-tensors: which of a checkpoint's modules are quantized, and how.

``quantization_config`` of config.json, as the compressed-tensors library writes it (QuantizationConfig,
QuantizationScheme and QuantizationArgs there).
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ...errors import CheckpointError, UnsupportedError
from ...files.json_fields import JSONFields, shown

Kind = Literal["Linear", "Embedding"]

PATTERN = "re:"
MOST_REPEATS = 6
MOST_CHARACTERS = 2_000
MOST_STEPS = 5 * 10**9
MOST_BLOCK = 2**20
DENSE = "dense"
MIXED = "mixed-precision"
REMEDY = "fetch config.json again"


@dataclass(frozen=True)
class WeightScheme:
    """How the weights of a group are quantized.

    Args:
        block: the rows and columns that share a scale; None for "all of them".
        reordered: columns are assigned to groups by ``weight_g_idx``.
        nested: scales are divided by a scale of the whole weight.
    """

    bits: int
    floating: bool
    symmetric: bool
    strategy: str
    block: tuple[int | None, int | None]
    reordered: bool
    nested: bool


@dataclass(frozen=True)
class Group:
    """One of ``config_groups``: ``weights`` is None where weights stay as they are; ``activations`` says in words how
    activations are quantized."""

    name: str
    format: str
    targets: tuple[str, ...]
    weights: WeightScheme | None
    activations: str | None


@dataclass(frozen=True)
class Settings:
    """The groups by target, in the order of the file, and the targets that are left out."""

    where: str
    targets: Mapping[str, Group]
    ignore: frozenset[str]
    notes: tuple[str, ...]

    @cached_property
    def _patterns(self) -> tuple[str, ...]:
        return tuple(sorted(target for target in self.targets if target.startswith(PATTERN)))

    @cached_property
    def _ignored_patterns(self) -> tuple[str, ...]:
        return tuple(target for target in self.ignore if target.startswith(PATTERN))

    def group(self, module: str, kind: Kind) -> Group | None:
        """Return the group of a module: by its name, else by a pattern, else by its class."""
        if module in self.ignore or kind in self.ignore or _first(self._ignored_patterns, module) is not None:
            return None
        if module in self.targets:
            return self.targets[module]
        pattern = _first(self._patterns, module)
        return self.targets.get(kind) if pattern is None else self.targets[pattern]

    def check_time(self, modules: Collection[str]) -> None:
        """Check that the patterns take little time with these names: a file from anyone may have any of both.

        Raises:
            UnsupportedError: they could take minutes.
        """
        longest = max(map(len, modules), default=0)
        steps = sum(_steps(pattern, longest) for pattern in (*self._patterns, *self._ignored_patterns))
        if steps * len(modules) > MOST_STEPS:
            raise UnsupportedError(
                f"{self.where}: the patterns (re:) of config_groups and ignore could take very long with names of "
                f"{longest:,} characters; write the modules' names out"
            )


def _first(patterns: Iterable[str], module: str) -> str | None:
    """Return the first pattern that matches the beginning of a module's name."""
    return next((one for one in patterns if re.match(one.removeprefix(PATTERN), module) is not None), None)


def _plain(pattern: str) -> str:
    """Return a pattern with one letter for each class of characters and each escaped one."""
    return re.sub(r"\\.|\[[^\]]*\]", "a", pattern.removeprefix(PATTERN))


def _steps(pattern: str, length: int) -> int:
    """Return about how many steps a match of a name takes at worst, with all ways to share it among the repeats."""
    plain = _plain(pattern)
    repeats, options = len(re.findall(r"[*+{]", plain)), len(re.findall(r"(?<![(*+}])\?", plain))
    choices = math.prod(1 + part.count("|") for part in plain.split(")"))
    steps: int = (length**repeats // math.factorial(repeats) + 1) * 2**options * choices
    return steps


def read_settings(fields: JSONFields) -> Settings:
    """Parse ``quantization_config``.

    Raises:
        CheckpointError: a value is damaged, or contradicts another.
        UnsupportedError: a value asks for what is not read.
    """
    where = fields.where
    _refuse(fields)
    form = fields.text("format") or DENSE
    groups = fields.fields("config_groups")
    targets: dict[str, Group] = {}
    for name in groups.values if groups is not None else ():
        assert groups is not None
        if isinstance(groups.values[name], list):
            raise UnsupportedError(
                f"{groups.where}: {shown(name)} is a preset, known by its name alone; write its weights, "
                "input_activations and targets out, as save_pretrained does"
            )
        group = _group(name, groups, form)
        targets |= dict.fromkeys(group.targets, group)
    ignore = frozenset(fields.texts("ignore") or ())
    for target in (*targets, *ignore):
        _check_pattern(target, where)
    notes = []
    if "kv_cache_scheme" in fields:
        notes.append("the checkpoint's quantization of the KV cache (kv_cache_scheme) is not used")
    return Settings(where, targets, ignore, tuple(notes))


def _refuse(fields: JSONFields) -> None:
    """Refuse what changes the computation or the storage beyond quantized weights."""
    transform = fields.fields("transform_config")
    if transform is not None and any(transform.values.get(key) for key in transform.values):
        raise UnsupportedError(
            f"{fields.where}: transform_config rotates weights and activations (as SpinQuant and QuIP do), which is "
            "not read; export the checkpoint that it was made from"
        )
    for key in ("sparsity_config", "moe_sparsity_config"):
        sparsity = fields.fields(key)
        if sparsity is not None and sparsity.values and sparsity.get("format", DENSE) != DENSE:
            raise UnsupportedError(
                f"{fields.where}: {key} stores sparse weights ({shown(sparsity.get('format'))}), which are not read; "
                "export the checkpoint that it was made from"
            )


def _group(name: str, groups: JSONFields, form: str) -> Group:
    fields = groups.fields(name)
    if fields is None:
        raise CheckpointError(f"{groups.where}: {shown(name)} is null; {REMEDY}")
    targets = fields.texts("targets")
    if not targets:
        raise CheckpointError(f"{fields.where}: targets is missing, the modules that the group is for; {REMEDY}")
    own = fields.text("format") or form
    if own == MIXED:
        raise CheckpointError(f"{fields.where}: format is missing, and that of all groups is {MIXED}; {REMEDY}")
    weights = fields.fields("weights")
    said = [
        f"{key.removesuffix('_activations')} activations to {_activations(one)}"
        for key in ("input_activations", "output_activations")
        if (one := fields.fields(key)) is not None
    ]
    scheme = None if weights is None else _scheme(weights)
    return Group(name, own, tuple(targets), scheme, " and ".join(said) or None)


def _activations(fields: JSONFields) -> str:
    kind = "floats" if fields.text("type") == "float" else "integers"
    dynamic = "with scales computed at run time" if fields.get("dynamic") else "with stored scales"
    return f"{fields.integer('num_bits', least=1, most=16) or 8}-bit {kind} {dynamic}"


def _scheme(fields: JSONFields) -> WeightScheme:
    kind = (fields.text("type") or "int").lower()
    if kind not in ("int", "float"):
        raise fields.bad("type", "int or float")
    size = fields.integer("group_size", least=-1, most=MOST_BLOCK)
    if size == 0:
        raise fields.bad("group_size", "a whole number of at least 1, or -1 for whole rows")
    inferred = "tensor" if size is None else "group" if size > 0 else "channel"
    strategy = (fields.text("strategy") or inferred).lower()
    actorder = fields.get("actorder")
    reordered = actorder is True or (isinstance(actorder, str) and actorder.lower() in ("group", "dynamic"))
    block: tuple[int | None, int | None]
    if strategy == "tensor":
        block = (None, None)
    elif strategy == "channel":
        block = (1, None)
    elif strategy in ("group", "tensor_group"):
        if size is None or size < 1:
            raise fields.bad("group_size", f"a whole number of at least 1, for the strategy {strategy}")
        block = (1, size)
    elif strategy == "block":
        block = _block_structure(fields)
    else:
        raise UnsupportedError(
            f"{fields.where}: strategy is {shown(strategy)}, which is not read for weights (tensor, channel, group, "
            "tensor_group and block are); export the checkpoint that it was made from"
        )
    if reordered and strategy != "group":
        raise CheckpointError(f"{fields.where}: actorder orders groups, and the strategy is {strategy}; {REMEDY}")
    return WeightScheme(
        bits=fields.integer("num_bits", least=1, most=32) or 8,
        floating=kind == "float",
        symmetric=fields.boolean("symmetric") is not False,
        strategy=strategy,
        block=block,
        reordered=reordered,
        nested=strategy == "tensor_group",
    )


def _block_structure(fields: JSONFields) -> tuple[int, int]:
    """Read ``block_structure``: [rows, columns], or "128x128" as older versions write it."""
    value = fields.get("block_structure")
    if isinstance(value, str):
        parts = value.split("x")
        value = [int(part) if part.isascii() and part.isdigit() and len(part) < 8 else part for part in parts]
    sizes = JSONFields({"block_structure": value}, fields.where).integers("block_structure", least=1, most=MOST_BLOCK)
    if sizes is None or len(sizes) != 2:
        raise fields.bad("block_structure", "two whole numbers of at least 1, rows and columns")
    return sizes[0], sizes[1]


def _check_pattern(target: str, where: str) -> None:
    """Check that a pattern is one, without repeated groups, whose matches can take exponential time."""
    if not target.startswith(PATTERN):
        return
    plain = _plain(target)
    if len(target) > MOST_CHARACTERS or len(re.findall(r"[*+{]", plain)) > MOST_REPEATS or re.search(r"\)[*+{]", plain):
        raise UnsupportedError(
            f"{where}: the pattern {shown(target)} repeats a group, or repeats more than {MOST_REPEATS} times, which "
            "can take very long and is not read; write the modules' names out"
        )
    try:
        re.compile(target.removeprefix(PATTERN))
    except (re.error, RecursionError, OverflowError) as error:
        raise CheckpointError(f"{where}: {shown(target)} is not a pattern ({error}); {REMEDY}") from None
