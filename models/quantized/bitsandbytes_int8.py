"""Weights of LLM.int8: whole numbers from -127 to 127, and for each row the greatest absolute value (``SCB``).

    MODULE.weight           int8 [N, K]
    MODULE.SCB              float32 [N]
    MODULE.weight_format    uint8: 0 where the numbers are in the order of rows; others were for one kind of GPU each

A number is ``SCB / 127 * code``. The threshold of outliers (``llm_int8_threshold``) concerns the activations alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import UnsupportedError
from ..storage.store import TensorStore
from ..weight_source import TensorInfo
from .stored import expect, finite, stored_bytes
from .weights import BlockParameters

SCALES = ".SCB"
FORMAT = ".weight_format"
ZERO_POINT = 128


@dataclass(frozen=True)
class Int8Weight:
    """A weight [N, K] in int8 with a scale a row; it is its own grid.

    Args:
        store: the stored tensors.
        module: the name of the module that has the weight.
        stored: the names of the tensors that it takes.
        info: its file, dtype F32 and shape.
        stored_bytes: the bytes that it takes.
    """

    store: TensorStore
    module: str
    stored: tuple[str, ...]
    info: TensorInfo
    stored_bytes: int
    format: str = "bitsandbytes LLM.int8"
    bits: int = 8
    order: Tensor | None = None

    @property
    def grid(self) -> "Int8Weight":
        return self

    @property
    def block_size(self) -> int:
        return self.info.shape[1]

    def parameters(self) -> BlockParameters:
        height = self.info.shape[0]
        zero_points = torch.full((height, 1), ZERO_POINT, dtype=torch.uint8)
        return BlockParameters(self._scales(range(height)), zero_points)

    def codes(self, rows: range) -> Tensor:
        return (self.store.read(f"{self.module}.weight", rows).int() + ZERO_POINT).to(torch.uint8)

    def values(self, rows: range, columns: range) -> Tensor:
        return self.store.read(f"{self.module}.weight", rows, columns).float() * self._scales(rows)

    def _scales(self, rows: range) -> Tensor:
        """Read the scales of some rows, float32 [n, 1]."""
        name = self.module + SCALES
        return (finite(self.store.read(name, rows), self.store.tensors[name], name) / 127)[:, None]


def read_int8(store: TensorStore, module: str) -> Int8Weight:
    """Read the headers of one weight's tensors.

    Raises:
        CheckpointError: a tensor is missing or damaged.
        UnsupportedError: the numbers are in another order.
    """
    weight = f"{module}.weight"
    codes = expect(store, weight, ("I8",), (None, None))
    stored = {weight: codes, module + SCALES: expect(store, module + SCALES, ("F32",), (codes.shape[0],))}
    if (layout := module + FORMAT) in store.tensors:
        stored[layout] = expect(store, layout, ("U8",), ())
        if (found := int(store.read(layout))) != 0:
            raise UnsupportedError(
                f"{codes.file}: tensor {layout} is {found}, an order of the numbers for one kind of GPU that is not "
                "read; load the model with a current bitsandbytes, and save it again"
            )
    info = TensorInfo(codes.file, "F32", codes.shape)
    return Int8Weight(store, module, tuple(stored), info, stored_bytes(stored.values()))
