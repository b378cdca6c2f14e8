"""The description of an adapter, from its config and the header of its weights."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from ...extras import export_extra
from ...files.foreign_format import ADAPTER, foreign_format
from ...files.json_file import read_object
from ..sizes import size
from .weights import kind_order


@dataclass(frozen=True)
class AdapterDescription:
    """The facts of an adapter that `inspect` prints.

    Attributes:
        base: the model that it was trained on, as its config names it.
        ranks: the lowest and the highest rank of its modules.
        options: what distinguishes the method from plain LoRA.
        changes: the number of modules whose weights it changes, by kind.
        replaces: the number of modules that it brings whole, by kind.
        advice: how to export its base with it.
    """

    path: str
    method: str
    base: str | None
    task: str | None
    ranks: tuple[int, int]
    alpha: float
    options: tuple[str, ...]
    changes: Mapping[str, int]
    replaces: Mapping[str, int]
    tensors: int
    parameters: int
    notes: tuple[str, ...]
    advice: str

    def to_json(self) -> dict[str, Any]:
        facts = asdict(self) | {"changes": dict(self.changes), "replaces": dict(self.replaces)}
        return {"kind": "adapter", **facts}

    def to_lines(self) -> list[tuple[str, str]]:
        """Return the description as (name, value) lines."""
        low, high = self.ranks
        rank = f"rank {low}" if low == high else f"ranks {low} to {high}"
        lines = [
            ("adapter", self.path),
            ("base", self.base or "not named"),
            ("method", ", ".join([self.method, rank, f"alpha {self.alpha:g}", *self.options])),
            ("changes", _counted(self.changes) or "no matrix"),
        ]
        if self.replaces:
            lines.append(("replaces", _counted(self.replaces)))
        if self.task is not None:
            lines.append(("task", self.task))
        lines.append(
            ("parameters", f"{self.parameters:,} in {self.tensors} tensors, {size(4 * self.parameters)} as fp32")
        )
        lines += [("note", note) for note in self.notes]
        return [*lines, ("export", self.advice)]


def describe_adapter(path: Path) -> AdapterDescription:
    """Describe the adapter in a folder; its tensors are not read.

    Raises:
        CheckpointError, UnsupportedError: it is damaged, or it is not merged.
        DependencyError: torch is not installed.
    """
    with export_extra():
        from ...models.adapters.given import AdapterFolder
        from ...models.adapters.parts import REPLACED, read_parts
    parts = read_parts(AdapterFolder(path, str(path), None, 1.0))
    config, modules = parts.config, parts.modules
    changed = [module for module, found in modules.items() if not set(found) <= set(REPLACED)]
    ranks = [config.rank_of(parts.key(module)) for module in changed] or [config.rank]
    base = read_object(path / ADAPTER).get("base_model_name_or_path")
    said = foreign_format(path) or ""
    chosen = {"rslora": config.rslora, "DoRA": config.dora, "biases": config.lora_bias}
    return AdapterDescription(
        path=str(path),
        method=config.method,
        base=base if isinstance(base, str) and base else None,
        task=config.task,
        ranks=(min(ranks), max(ranks)),
        alpha=config.alpha,
        options=tuple(name for name, given in chosen.items() if given),
        changes=_by_kind(changed),
        replaces=_by_kind([module for module in modules if module not in changed]),
        tensors=sum(len(found) for found in modules.values()),
        parameters=sum(prod(one.shape) for found in modules.values() for one in found.values()),
        notes=config.notes,
        advice=said.partition("; ")[2],
    )


def _by_kind(modules: list[str]) -> dict[str, int]:
    kinds = Counter(module.rpartition(".")[2] for module in modules)
    return {kind: kinds[kind] for kind in sorted(kinds, key=kind_order)}


def _counted(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} ({number})" for kind, number in kinds.items())
