"""Quantized weights of tests: grids of random codes in any format, and checkpoints whose weights they are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.models import checkpoint as checkpoint_module
from intaglio.models.quantized.weights import BlockParameters, QuantizedWeights
from intaglio.models.storage.store import TensorStore
from intaglio.models.weight_source import TensorInfo
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """A grid in memory."""

    bits: int
    block_size: int
    all_codes: Tensor
    blocks: BlockParameters
    order: Tensor | None = None

    def parameters(self) -> BlockParameters:
        return self.blocks

    def codes(self, rows: range) -> Tensor:
        return self.all_codes[rows.start : rows.stop]

    def values(self) -> Tensor:
        """Compute the numbers in float64, and round them to float32."""
        columns = self.all_codes.shape[1]

        def spread(values: Tensor) -> Tensor:
            return values.double().repeat_interleave(self.block_size, 1)[:, :columns]

        found = (self.all_codes.double() - spread(self.blocks.zero_points)) * spread(self.blocks.scales)
        if self.blocks.offsets is not None:
            found = found + spread(self.blocks.offsets)
        if self.order is not None:
            found = found[:, self.order.argsort()]
        return found.float()


@dataclass(frozen=True)
class Weight:
    """A quantized weight in memory; its grid may be left out."""

    info: TensorInfo
    whole: Grid
    format: str = "a format of tests"
    stored_bytes: int = 0
    has_grid: bool = True

    @property
    def grid(self) -> Grid | None:
        return self.whole if self.has_grid else None

    def values(self, rows: range, columns: range) -> Tensor:
        return self.whole.values()[rows.start : rows.stop, columns.start : columns.stop]


@dataclass(frozen=True)
class Kind:
    """How ``random_grid`` makes a grid.

    Args:
        zeros: "middle", "any", or "least", which is 0 for every block.
        offsets: "none", "multiples" of the scales, or "any".
        scales: "half" for numbers of float16, "single" for others.
        ordered: columns are in a random order, the same for all weights of one width.
    """

    bits: int = 4
    block_size: int = 32
    zeros: str = "middle"
    offsets: str = "none"
    scales: str = "half"
    ordered: bool = False


KINDS: Mapping[str, Kind] = {
    "4 bits": Kind(),
    "4 bits, groups of 128": Kind(block_size=128),
    "4 bits, zero points": Kind(zeros="any"),
    "4 bits, a row": Kind(block_size=1 << 20),
    "2 bits, groups of 16": Kind(2, 16, zeros="any"),
    "3 bits, groups of 64": Kind(3, 64, zeros="any"),
    "5 bits": Kind(5, zeros="least", offsets="any"),
    "6 bits, groups of 16": Kind(6, 16, scales="single"),
    "7 bits": Kind(7, zeros="any"),
    "8 bits": Kind(8),
    "8 bits, zero points": Kind(8, 64, zeros="any"),
    "8 bits, a row": Kind(8, 1 << 20, scales="single"),
    "8 bits, groups of 256": Kind(8, 256),
    "groups of 96": Kind(4, 96, zeros="any"),
    "scales in float32": Kind(scales="single"),
    "offsets": Kind(zeros="least", offsets="any"),
    "offsets and zero points": Kind(zeros="any", offsets="any", scales="single"),
    "offsets that are multiples": Kind(zeros="least", offsets="multiples"),
    "act-order": Kind(zeros="any", ordered=True),
    "act-order, offsets": Kind(4, 64, zeros="least", offsets="any", ordered=True),
}
"""Formats of quantized weights, by what is special about them."""


def random_grid(kind: Kind, rows: int, columns: int, seed: int, spread: float = 0.05) -> Grid:
    generator = torch.Generator().manual_seed(seed)
    size = min(kind.block_size, columns)
    count, top = -(-columns // size), 2**kind.bits - 1
    scales = (0.5 + torch.rand(rows, count, generator=generator)) * spread * 4 / (top + 1)
    scales *= torch.where(torch.rand(rows, count, generator=generator) < 0.5, -1, 1)
    if kind.scales == "half":
        scales = scales.half().float()
    points = torch.full((rows, count), 0 if kind.zeros == "least" else (top + 1) // 2)
    if kind.zeros == "any":
        points = torch.randint(0, top + 1, (rows, count), generator=generator)
    offsets = None
    if kind.offsets == "multiples":
        offsets = -scales * torch.randint(0, top + 1, (rows, count), generator=generator)
    elif kind.offsets == "any":
        offsets = (-scales * (top + 1) / 2) * (1 + 0.1 * torch.randn(rows, count, generator=generator))
    codes = torch.randint(0, top + 1, (rows, columns), generator=generator, dtype=torch.uint8)
    order = torch.randperm(columns, generator=torch.Generator().manual_seed(columns)) if kind.ordered else None
    return Grid(kind.bits, size, codes, BlockParameters(scales, points.to(torch.uint8), offsets), order)


def reader(
    choose: Callable[[str], Kind | None], change: Callable[[str, Weight], Weight] = lambda name, weight: weight
) -> Callable[[Any, TensorStore, Path], QuantizedWeights]:
    """Return a reader that has random grids in the place of the stored matrices for which ``choose`` returns a kind."""

    def read(settings: Any, store: TensorStore, folder: Path) -> QuantizedWeights:
        weights = {}
        for seed, (name, info) in enumerate(sorted(store.tensors.items())):
            kind = choose(name) if len(info.shape) == 2 else None
            if kind is not None:
                rows, columns = info.shape
                grid = random_grid(kind, rows, columns, seed, 1.0 if "embed" in name else 0.3)
                weights[name] = change(name, Weight(replace(info, dtype="F32"), grid))
        return QuantizedWeights(weights, frozenset(weights))

    return read


def install(
    monkeypatch: pytest.MonkeyPatch,
    choose: Callable[[str], Kind | None],
    change: Callable[[str, Weight], Weight] = lambda name, weight: weight,
) -> None:
    """Let every checkpoint have quantized weights."""
    monkeypatch.setattr(checkpoint_module, "read_quantized", reader(choose, change))


def by_end(kinds: Mapping[str, Kind]) -> Callable[[str], Kind | None]:
    """Choose by the end of a name, the first that fits; without a match a weight stays in float."""
    return lambda name: next((kind for end, kind in kinds.items() if name.removesuffix(".weight").endswith(end)), None)


LAYERS = ("_proj",)
EVERY = ("_proj", "embed_tokens", "lm_head")
