"""Scales that a quantization method folded into the weights before it rounded them.

Multiplying the columns of a projection and dividing its inputs by the same scales leaves the model's function as it is
(Xiao et al., SmoothQuant, 2023; Lin et al., AWQ, 2023), but the stored numbers are no longer the checkpoint's. What can
be divided: the norm before q, k and v, and the norm before gate and up, where the family has a norm there; the rows of
v (and its bias), for o; the rows of up, for down. A value head is an input of all query heads of its group.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...artifact import TensorEntry
from ...models.checkpoint import Checkpoint
from ...models.family import FAMILIES
from .expected import Expected
from .reading.layouts import Weight

FOLDING_METHODS = ("awq", "smoothquant")
"""Quantization methods that fold scales into the columns of a weight."""

MAX_UNCERTAINTY = 2.0**-9
"""The relative uncertainty of scales up to which single codes are checked."""

EPSILON = {torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}


@dataclass(frozen=True)
class StoredWeight:
    """An initializer: its entry in the manifest, and the weight as the graph reads it."""

    name: str
    entry: TensorEntry
    weight: Weight


@dataclass(frozen=True)
class Fold:
    """Tensors of the checkpoint with a common set of scales.

    Args:
        divided: names of those whose rows are divided by the scales (of a vector, its numbers).
        multiplied: names of those whose columns are multiplied by them.
        repeats: each run of ``run`` scales belongs to this many runs of columns.
    """

    divided: tuple[str, ...]
    multiplied: tuple[str, ...]
    repeats: int = 1
    run: int = 1

    def expand(self, scales: Tensor) -> Tensor:
        """Return the scale of each column."""
        return scales.view(-1, 1, self.run).expand(-1, self.repeats, -1).reshape(-1)

    def sum_columns(self, columns: Tensor) -> Tensor:
        """Return the sum over the columns that share a scale."""
        return columns.view(-1, self.repeats, self.run).sum(1).reshape(-1)


@dataclass
class FoldFactors:
    """The scales folded into each tensor of the checkpoint, by its name.

    Attributes:
        rows: factors of the rows [N]; of a vector, of its numbers.
        columns: factors of the columns [K].
        uncertainty: the relative uncertainty of the factors.
        faults: the vectors that were not divided by the scales, with a description.
    """

    rows: dict[str, Tensor] = field(default_factory=dict)
    columns: dict[str, Tensor] = field(default_factory=dict)
    uncertainty: dict[str, float] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    def add(self, fold: "Fold", scales: Tensor, uncertainty: float) -> None:
        for name in fold.divided:
            self.rows[name] = 1 / scales
        for name in fold.multiplied:
            self.columns[name] = fold.expand(scales)
        for name in (*fold.divided, *fold.multiplied):
            self.uncertainty[name] = max(uncertainty, self.uncertainty.get(name, 0.0))

    def remove(self, fold: "Fold") -> None:
        for name in fold.divided:
            self.rows.pop(name, None)
        for name in fold.multiplied:
            self.columns.pop(name, None)

    def apply(self, expected: Expected) -> Expected:
        """Return the expected numbers with the scales folded in."""
        if not any(name in self.rows or name in self.columns for name in expected.sources):
            return expected
        rows = self._joined_rows(expected)
        if expected.is_vector:
            columns, rows = rows, None
        else:
            columns = next((self.columns[name] for name in expected.sources if name in self.columns), None)
        uncertainty = max(self.uncertainty.get(name, 0.0) for name in expected.sources)
        return replace(expected, row_scales=rows, column_scales=columns, uncertainty=uncertainty)

    def _joined_rows(self, expected: Expected) -> Tensor | None:
        if not any(name in self.rows for name in expected.sources):
            return None
        pairs = zip(expected.sources, expected.lengths, strict=True)
        return torch.cat([self.rows.get(name, torch.ones(length)) for name, length in pairs])


def folds(checkpoint: Checkpoint, stored: Mapping[str, StoredWeight]) -> list[Fold]:
    """Return the folds that the manifest's methods make, in the order in which their scales can be found.

    Args:
        stored: the stored weights, by name of the checkpoint's tensor.
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
        values = tuple(name for name in values if name in stored)
        layer.append(Fold(values, (f"{prefix}self_attn.o_proj.weight",), groups, config.head_dim))
        layer.append(Fold((f"{prefix}mlp.up_proj.weight",), (f"{prefix}mlp.down_proj.weight",)))
        for fold in layer:
            known = all(name in stored for name in (*fold.divided, *fold.multiplied))
            if known and all(_method(stored[name]) in FOLDING_METHODS for name in fold.multiplied):
                found.append(fold)
    return found


def _method(stored: StoredWeight) -> str | None:
    return stored.entry.quantization.method if stored.entry.quantization else None
