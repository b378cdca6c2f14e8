"""Scales that were folded into the weights before they were rounded, found again.

Multiplying the columns of a projection, and dividing what feeds them by the same, changes nothing that the model
computes (Xiao et al., SmoothQuant, 2023; Lin et al., AWQ, 2023), and makes other numbers of the weights. What can be
divided: the norm in front of q, k and v, and of gate and up, where the family has one there; the rows of v (and its
bias) before o, the rows of up before down. A value head feeds all the query heads of its group.

A vector that was divided gives the scales away: they are the source's numbers over the stored ones. Where there is
none, the scales are those that fit the rows and the columns best.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..artifact import TensorEntry
from ..models.checkpoint import Checkpoint
from .expected import Expected, expected_of
from .layouts import Weight
from .stored import FloatWeight

METHODS = ("awq", "smoothquant")
"""Of the manifest, those that fold scales into the columns of a weight."""

NORMS: Mapping[str, Mapping[str, str]] = {
    "qwen2": {"input_layernorm": "self_attn.q_proj self_attn.k_proj self_attn.v_proj"}
    | {"post_attention_layernorm": "mlp.gate_proj mlp.up_proj"},
    "exaone4": {},
}
"""Of each family, the norms that feed nothing but the projections after them."""

ROUNDING = {torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}


Wanted = Callable[[str], Expected]
"""What holds a tensor of the checkpoint should hold, with what was folded into it as far as that is known."""


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
    how uncertain that is. ``carriers`` are the vectors that gave scales away, and ``wrong`` says of which they cannot
    be right."""

    rows: dict[str, Tensor]
    columns: dict[str, Tensor]
    noise: dict[str, float]
    carriers: set[str]
    wrong: dict[str, str]

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
            Fold((f"{prefix}{norm}.weight",), tuple(f"{prefix}{name}.weight" for name in names.split()))
            for norm, names in NORMS[config.family].items()
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


def factors(checkpoint: Checkpoint, holders: Mapping[str, Holder], through: torch.dtype | None) -> Factors:
    """The scales of every fold."""
    known = Factors({}, {}, {}, set(), {})
    for fold in folds(checkpoint, holders):
        _find(checkpoint, holders, fold, known, through)
    return known


def _find(
    checkpoint: Checkpoint,
    holders: Mapping[str, Holder],
    fold: Fold,
    known: Factors,
    through: torch.dtype | None,
) -> None:
    def expected(name: str) -> Expected:
        wanted = expected_of(checkpoint, holders[name].entry.sources, holders[name].name)
        return known.apply(replace(wanted, through=through))

    fitted, noise = _fitted(fold, holders, expected)
    exact, rounding = _given(fold, holders, expected)
    if exact is not None:
        usable = exact.isfinite() & (exact > 0)
        off = (exact / fitted - 1).abs() > 6 * noise + 8 * rounding
        share = (off & usable & (fitted > 0)).sum().item() / max(1, int(usable.sum()))
        vector = next(name for name in fold.divided if expected(name).vector)
        if not usable.any() or share > 0.05:
            known.wrong[vector] = _wrong(exact, fitted, usable, fold)
            usable = torch.zeros_like(usable)
        else:
            known.carriers.add(vector)
        fitted = torch.where(usable, exact, fitted)
        noise = rounding if usable.all() else noise
    scales = torch.where(fitted.isfinite() & (fitted > 0), fitted, 1.0)
    for name in fold.divided:
        known.rows[name] = 1 / scales
        known.noise[name] = max(noise, known.noise.get(name, 0.0))
    for name in fold.multiplied:
        known.columns[name] = fold.spread(scales)
        known.noise[name] = max(noise, known.noise.get(name, 0.0))


def _wrong(exact: Tensor, fitted: Tensor, usable: Tensor, fold: Fold) -> str:
    behind = ", ".join(name.removesuffix(".weight").rpartition(".")[2] for name in fold.multiplied)
    if not usable.any():
        return f"its numbers are not the source's divided by positive scales, as those of {behind} need it"
    factor = (fitted / exact)[usable].median().item()
    return (
        f"its numbers are not the source's divided by the scales in the columns of {behind}: in the middle they are "
        f"{factor:.4g} times that"
    )


def _given(fold: Fold, holders: Mapping[str, Holder], expected: Wanted) -> tuple[Tensor | None, float]:
    """The scales [n] that a divided vector gives away, NaN where it is zero, and how it was rounded."""
    for name in fold.divided:
        wanted = expected(name)
        if wanted.vector:
            weight = holders[name].weight
            assert isinstance(weight, FloatWeight)
            source = torch.cat([part for _, _, part in wanted.pieces(by_columns=False)], 1)
            place = wanted.place(name)
            stored = weight.read(range(1), range(wanted.shape[1])).values
            both = (source[0] / stored[0])[place.start : place.stop]
            return torch.where(source[0][place.start : place.stop] == 0, torch.nan, both), ROUNDING[weight.dtype]
    return None, 0.0


def _fitted(fold: Fold, holders: Mapping[str, Holder], expected: Wanted) -> tuple[Tensor, float]:
    """The scales [n] that fit best, by least squares over rows divided and columns multiplied, and their noise."""
    ratios: list[tuple[Tensor, float]] = []
    for name in fold.multiplied:
        product, power = _sums(holders[name].weight, expected(name), name, by_rows=False)
        count = expected(name).lengths[0] * fold.repeats
        ratios.append((fold.gather(product) / fold.gather(power), _certainty(holders[name], count)))
    for name in fold.divided:
        if not expected(name).vector:
            product, power = _sums(holders[name].weight, expected(name), name, by_rows=True)
            ratios.append((power / product, _certainty(holders[name], expected(name).shape[1])))
    certainty = sum(weight for _, weight in ratios)
    scales = torch.stack([ratio * (weight / certainty) for ratio, weight in ratios]).sum(0)
    return scales.float(), certainty**-0.5


def _certainty(holder: Holder, count: int) -> float:
    """The inverse of a ratio's variance."""
    quantization = holder.entry.quantization
    dtype = holder.weight.dtype if isinstance(holder.weight, FloatWeight) else torch.float32
    error = quantization.error if quantization else ROUNDING[dtype]
    return count / max(error, 1e-7) ** 2


def _weight(holder: Holder, count: int) -> float:
    """The inverse of a ratio's variance."""
    quantization = holder.entry.quantization
    dtype = holder.weight.dtype if isinstance(holder.weight, FloatWeight) else torch.float32
    error = quantization.error if quantization else ROUNDING[dtype]
    return count / max(error, 1e-7) ** 2


def _sums(weight: Weight, expected: Expected, name: str, *, by_rows: bool) -> tuple[Tensor, Tensor]:
    """Products of the source's and the stored numbers of one tensor, and the source's squares, float64 by row or
    column."""
    place = expected.place(name)
    axis = 1 if by_rows else 0
    length = len(place) if by_rows else expected.shape[1]
    product, power = torch.zeros(length, dtype=torch.float64), torch.zeros(length, dtype=torch.float64)
    multiple = weight.block_size or 1
    multiple = multiple if multiple < expected.shape[1] else 1
    for rows, columns, wanted in expected.pieces(by_columns=weight.by_columns, multiple=multiple):
        inside = range(max(rows.start, place.start), min(rows.stop, place.stop))
        if not inside:
            continue
        some = slice(inside.start - rows.start, inside.stop - rows.start)
        source, stored = wanted[some], weight.read(rows, columns).values[some]
        stored = torch.where(stored.isfinite(), stored, 0.0)
        first = inside.start - place.start if by_rows else columns.start
        at = slice(first, first + (len(inside) if by_rows else len(columns)))
        product[at] += (source * stored).sum(axis, dtype=torch.float64)
        power[at] += source.square().sum(axis, dtype=torch.float64)
    return product, power
