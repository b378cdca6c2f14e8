"""Scales that were folded into the weights before they were rounded, found again.

Multiplying the columns of a projection, and dividing what feeds them by the same, changes nothing that the model
computes (Xiao et al., SmoothQuant, 2023; Lin et al., AWQ, 2023), and makes other numbers of the weights. What can be
divided: the norm in front of q, k and v, and of gate and up, where the family has one there; the rows of v (and its
bias) before o, the rows of up before down. A value head feeds all the query heads of its group.

A vector that was divided gives the scales away: they are the source's numbers over the stored ones. Where there is
none, the scales are those that fit the rows and the columns best.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...artifact import TensorEntry
from ...models.checkpoint import Checkpoint
from ...models.family import FAMILIES
from .expected import Expected
from .layouts import Weight

METHODS = ("awq", "smoothquant")
"""Of the manifest, those that fold scales into the columns of a weight."""

COARSE = 2.0**-9
"""How uncertain scales may be for single codes to be judged by them."""

ROUNDING = {torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}


@dataclass(frozen=True)
class Holder:
    """An initializer: its entry in the manifest, and the weight as the graph reads it."""

    name: str
    entry: TensorEntry
    weight: Weight


@dataclass(frozen=True)
class Fold:
    """``divided`` by rows (vectors by their numbers) and ``multiplied`` by columns. Each run of ``run`` scales stands
    for ``repeats`` runs of columns."""

    divided: tuple[str, ...]
    multiplied: tuple[str, ...]
    repeats: int = 1
    run: int = 1

    def spread(self, scales: Tensor) -> Tensor:
        return scales.view(-1, 1, self.run).expand(-1, self.repeats, -1).reshape(-1)

    def gather(self, columns: Tensor) -> Tensor:
        """Sums over the columns that share a scale."""
        return columns.view(-1, self.repeats, self.run).sum(1).reshape(-1)


@dataclass
class Factors:
    """What was folded into each tensor of the checkpoint: by rows [N] (of a vector by its numbers), by columns [K], and
    how uncertain that is, relatively. ``wrong`` says which vectors cannot have been divided by the scales."""

    rows: dict[str, Tensor] = field(default_factory=dict)
    columns: dict[str, Tensor] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)

    def add(self, fold: "Fold", scales: Tensor, noise: float) -> None:
        for name in fold.divided:
            self.rows[name] = 1 / scales
        for name in fold.multiplied:
            self.columns[name] = fold.spread(scales)
        for name in (*fold.divided, *fold.multiplied):
            self.noise[name] = max(noise, self.noise.get(name, 0.0))

    def apply(self, expected: Expected) -> Expected:
        """The source as it was folded."""
        if not any(name in self.rows or name in self.columns for name in expected.sources):
            return expected
        rows = self._joined(expected, self.rows)
        if expected.vector:
            columns, rows = rows, None
        else:
            columns = next((self.columns[name] for name in expected.sources if name in self.columns), None)
        noise = max(self.noise.get(name, 0.0) for name in expected.sources)
        return replace(expected, rows_by=rows, columns_by=columns, noise=noise)

    def _joined(self, expected: Expected, known: Mapping[str, Tensor]) -> Tensor | None:
        if not any(name in known for name in expected.sources):
            return None
        pairs = zip(expected.sources, expected.lengths, strict=True)
        return torch.cat([known.get(name, torch.ones(length)) for name, length in pairs])


def folds(checkpoint: Checkpoint, holders: Mapping[str, Holder]) -> list[Fold]:
    """Those that the methods in the manifest tell of, in the order in which their scales can be found.

    Args:
        holders: by tensor of the checkpoint.
    """
    config = checkpoint.config
    groups = config.num_attention_heads // config.num_key_value_heads
    found = []
    for index in range(config.num_hidden_layers):
        prefix = f"{checkpoint.trunk_prefix}layers.{index}."
        layer = [
            Fold((f"{prefix}{norm}.weight",), tuple(f"{prefix}{name}.weight" for name in names))
            for norm, names in FAMILIES[config.family].feeding_norms.items()
        ]
        values = tuple(f"{prefix}self_attn.v_proj.{leaf}" for leaf in ("weight", "bias"))
        values = tuple(name for name in values if name in holders)
        layer.append(Fold(values, (f"{prefix}self_attn.o_proj.weight",), groups, config.head_dim))
        layer.append(Fold((f"{prefix}mlp.up_proj.weight",), (f"{prefix}mlp.down_proj.weight",)))
        for fold in layer:
            known = all(name in holders for name in (*fold.divided, *fold.multiplied))
            if known and all(_method(holders[name]) in METHODS for name in fold.multiplied):
                found.append(fold)
    return found


def _method(holder: Holder) -> str | None:
    return holder.entry.quantization.method if holder.entry.quantization else None
