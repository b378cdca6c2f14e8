"""Scale folding: a checkpoint that computes the same function with other numbers in it.

Dividing a channel before a projection and multiplying that column of its weight changes nothing but what a quantizer
sees (Xiao et al., SmoothQuant, 2023; Lin et al., AWQ, 2023). It costs nothing at run time where something linear
feeds the projection and can take the division: its carrier.

    projections      carrier in Qwen2              carrier in EXAONE 4.0
    q, k, v          input_layernorm               none: they read the residual stream itself
    o                the rows of v, and its bias   the rows of v
    gate, up         post_attention_layernorm      none: they read the residual stream itself
    down             the rows of up                the rows of up

A value head feeds every query head of its group, so o has one scale for each row of v, not for each of its columns.
The residual stream cannot carry a scale: every layer adds to it, and the final norm divides by its mean square.
Neither can gate, because of its silu. The LM head's carrier would be the final norm, but a tied head is also the
embedding, and heads are quantized by blocks of 8 bits, where there is nothing to gain.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ....models.checkpoint import Checkpoint
from ....models.config import ModelConfig
from ....models.family import FAMILIES

DIVIDED: Mapping[str, tuple[str, ...]] = {
    "self_attn.o_proj": ("self_attn.v_proj.weight", "self_attn.v_proj.bias"),
    "mlp.down_proj": ("mlp.up_proj.weight",),
}
"""The tensors whose rows feed a projection."""


@dataclass(frozen=True)
class Carrier:
    """Where the scales of a stage's inputs can go.

    Args:
        divided: tensors [n, ...] whose rows are divided.
        multiplied: weights [N, K] whose columns are multiplied.
        repeats: each run of ``run`` scales stands for that many runs of columns: K is n * repeats.
        run: the length of such a run.
    """

    divided: tuple[str, ...]
    multiplied: tuple[str, ...]
    repeats: int = 1
    run: int = 1

    def spread(self, scales: Tensor) -> Tensor:
        """The scales [n] of the rows as scales [K] of the columns."""
        return scales.view(-1, 1, self.run).expand(-1, self.repeats, -1).reshape(-1)

    def gather(self, columns: Tensor) -> Tensor:
        """Magnitudes [K] of the columns as magnitudes [n]: the largest of those that share a scale."""
        return columns.view(-1, self.repeats, self.run).amax(1).reshape(-1)


@dataclass(frozen=True)
class Folded:
    """The ``scales`` [n] that a carrier takes; all positive."""

    carrier: Carrier
    scales: Tensor


def carrier_of(checkpoint: Checkpoint, layer: int, stage: tuple[str, ...]) -> Carrier | None:
    """The carrier of a stage, by the names of its projections inside the layer; None where there is none."""
    config = checkpoint.config
    prefix = f"{checkpoint.trunk_prefix}layers.{layer}."
    multiplied = tuple(f"{prefix}{name}.weight" for name in stage)
    for norm, projections in FAMILIES[config.family].feeding_norms.items():
        if stage == projections:
            return Carrier((f"{prefix}{norm}.weight",), multiplied)
    names = tuple(prefix + name for name in DIVIDED.get(stage[0], ()))
    divided = tuple(name for name in names if name in checkpoint.tensors)
    if not divided:
        return None
    repeats, run = _group(config) if stage[0] == "self_attn.o_proj" else (1, 1)
    return Carrier(divided, multiplied, repeats, run)


def _group(config: ModelConfig) -> tuple[int, int]:
    return config.num_attention_heads // config.num_key_value_heads, config.head_dim


class RescaledCheckpoint(Checkpoint):
    """A checkpoint with scales folded in; rescaled tensors are float32, read in ranges like the others."""

    def __init__(self, checkpoint: Checkpoint, folded: Iterable[Folded]) -> None:
        """
        Raises:
            AssertionError: a scale is no positive number, or does not fit its tensors.
        """
        self.inner = checkpoint
        self.folder, self.files, self.trunk_prefix = checkpoint.folder, checkpoint.files, checkpoint.trunk_prefix
        self.architecture, self.config, self.task = checkpoint.architecture, checkpoint.config, checkpoint.task
        self.tensors = dict(checkpoint.tensors)
        self._rows_by: dict[str, Tensor] = {}
        self._columns_by: dict[str, Tensor] = {}
        for fold in folded:
            self._fold(fold)
        for name in (*self._rows_by, *self._columns_by):
            self.tensors[name] = replace(self.tensors[name], dtype="F32")

    def _fold(self, fold: Folded) -> None:
        scales = fold.scales.float()
        assert bool((torch.isfinite(scales) & (scales > 0)).all()), f"scales of {fold.carrier.multiplied}"
        factors = [(self._rows_by, name, 0, 1 / scales) for name in fold.carrier.divided]
        factors += [(self._columns_by, name, 1, fold.carrier.spread(scales)) for name in fold.carrier.multiplied]
        for known, name, dimension, factor in factors:
            assert self.tensors[name].shape[dimension] == len(factor), f"{name}: {len(factor)} scales"
            known[name] = factor * known[name] if name in known else factor

    def tensor(self, name: str) -> Tensor:
        return self._scaled(name, self.inner.tensor(name), slice(None), slice(None))

    def _rows(self, name: str, start: int, stop: int) -> Tensor:
        return self._scaled(name, self.inner._rows(name, start, stop), slice(start, stop), slice(None))

    def columns(self, name: str, start: int, stop: int) -> Tensor:
        return self._scaled(name, self.inner.columns(name, start, stop), slice(None), slice(start, stop))

    def _scaled(self, name: str, piece: Tensor, rows: slice, columns: slice) -> Tensor:
        by_row, by_column = self._rows_by.get(name), self._columns_by.get(name)
        if by_row is None and by_column is None:
            return piece
        piece = piece.to(torch.float32, copy=True)
        if by_row is not None:
            piece *= by_row[rows].view(-1, *[1] * (piece.dim() - 1))
        if by_column is not None:
            piece *= by_column[columns]
        return piece
