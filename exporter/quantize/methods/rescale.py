"""Scale folding: a checkpoint that computes the same function with other weights.

Dividing a channel before a projection and multiplying that column of its weight leaves the outputs the same and makes
the weight easier to quantize (Xiao et al., SmoothQuant, 2023; Lin et al., AWQ, 2023). It costs nothing at run time
where something linear feeds the projection and can take the division: its carrier.

    projections      carrier in Qwen2              carrier in EXAONE 4.0
    q, k, v          input_layernorm               none: they read the residual stream itself
    o                the rows of v, and its bias   the rows of v
    gate, up         post_attention_layernorm      none: they read the residual stream itself
    down             the rows of up                the rows of up

A value head feeds every query head of its group, so o has one scale for each row of v, not for each of its columns.
The residual stream cannot carry a scale: every layer adds to it, and the final norm divides by its mean square.
Neither can gate, because of its silu. The final norm could carry the LM head's, but a tied LM head is also the
embedding, and LM heads are quantized in blocks of 8 bits, which gain nothing by it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ....artifact import Task
from ....models.config import ModelConfig
from ....models.dtypes import SAFETENSORS_DTYPES
from ....models.family import FAMILIES
from ....models.weight_source import CHUNK_BYTES, WeightSource

DIVIDED: Mapping[str, tuple[str, ...]] = {
    "self_attn.o_proj": ("self_attn.v_proj.weight", "self_attn.v_proj.bias"),
    "mlp.down_proj": ("mlp.up_proj.weight",),
}
"""The tensors whose rows feed a projection."""


@dataclass(frozen=True)
class Carrier:
    """The tensors that can take the scales of a stage's inputs.

    Args:
        divided: tensors [n, ...] whose rows are divided.
        multiplied: weights [N, K] whose columns are multiplied.
        repeats: each run of ``run`` scales serves that many runs of columns: K is n * repeats.
        run: the length of such a run.
    """

    divided: tuple[str, ...]
    multiplied: tuple[str, ...]
    repeats: int = 1
    run: int = 1

    def spread(self, scales: Tensor) -> Tensor:
        """Repeat the scales [n] of the rows as scales [K] of the columns."""
        return scales.view(-1, 1, self.run).expand(-1, self.repeats, -1).reshape(-1)

    def gather(self, columns: Tensor) -> Tensor:
        """Reduce magnitudes [K] of the columns to [n]: the largest of those that share a scale."""
        return columns.view(-1, self.repeats, self.run).amax(1).reshape(-1)


@dataclass(frozen=True)
class Folding:
    """The ``scales`` [n] that a carrier takes; all positive."""

    carrier: Carrier
    scales: Tensor


def carrier_of(checkpoint: WeightSource, layer: int, stage: tuple[str, ...]) -> Carrier | None:
    """Return the carrier of a stage, given by its projections' names inside the layer; None without one."""
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


class RescaledCheckpoint:
    """A source of weights with scales folded in; rescaled tensors are float32, read in ranges like the others."""

    def __init__(self, source: WeightSource, foldings: Iterable[Folding]) -> None:
        """Fold the scales.

        Raises:
            AssertionError: a scale is not a positive number, or does not fit its tensors.
        """
        self.source = source
        self.tensors = dict(source.tensors)
        self._rows_by: dict[str, Tensor] = {}
        self._columns_by: dict[str, Tensor] = {}
        for folding in foldings:
            self._fold(folding)
        for name in (*self._rows_by, *self._columns_by):
            self.tensors[name] = replace(self.tensors[name], dtype="F32")

    @property
    def folder(self) -> Path:
        return self.source.folder

    @property
    def text_folder(self) -> Path:
        return self.source.text_folder

    @property
    def config(self) -> ModelConfig:
        return self.source.config

    @property
    def task(self) -> Task:
        return self.source.task

    @property
    def trunk_prefix(self) -> str:
        return self.source.trunk_prefix

    def _fold(self, folding: Folding) -> None:
        scales, carrier = folding.scales.float(), folding.carrier
        assert bool((torch.isfinite(scales) & (scales > 0)).all()), f"scales of {carrier.multiplied}"
        factors = [(self._rows_by, name, 0, 1 / scales) for name in carrier.divided]
        factors += [(self._columns_by, name, 1, carrier.spread(scales)) for name in carrier.multiplied]
        for known, name, dimension, factor in factors:
            assert self.tensors[name].shape[dimension] == len(factor), f"{name}: {len(factor)} scales"
            known[name] = factor * known[name] if name in known else factor

    def tensor(self, name: str) -> Tensor:
        return self._scaled(name, self.source.tensor(name), slice(None), slice(None))

    def rows(self, name: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, Tensor]]:
        # Chunks are measured as float32 where that is what they become.
        before, after = (SAFETENSORS_DTYPES[tensors[name].dtype] for tensors in (self.source.tensors, self.tensors))
        for start, chunk in self.source.rows(name, chunk_bytes * before.itemsize // after.itemsize):
            yield start, self._scaled(name, chunk, slice(start, start + len(chunk)), slice(None))

    def columns(self, name: str, start: int, stop: int) -> Tensor:
        return self._scaled(name, self.source.columns(name, start, stop), slice(None), slice(start, stop))

    def _scaled(self, name: str, chunk: Tensor, rows: slice, columns: slice) -> Tensor:
        by_row, by_column = self._rows_by.get(name), self._columns_by.get(name)
        if by_row is None and by_column is None:
            return chunk
        chunk = chunk.to(torch.float32, copy=True)
        if by_row is not None:
            chunk *= by_row[rows].view(-1, *[1] * (chunk.dim() - 1))
        if by_column is not None:
            chunk *= by_column[columns]
        return chunk
