"""Tensors in memory as a store, and checks that hold for every quantized weight."""

from collections.abc import Mapping
from pathlib import Path

import torch
from intaglio.models.quantized.weights import QuantizedWeight
from intaglio.models.weight_source import TensorInfo
from torch import Tensor

DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.int32: "I32",
    torch.int64: "I64",
}


class Memory:
    """A store of tensors that no file holds."""

    def __init__(self, held: Mapping[str, Tensor]) -> None:
        self.held = held
        self.tensors = {
            name: TensorInfo(Path("model.safetensors"), DTYPES[one.dtype], tuple(one.shape))
            for name, one in held.items()
        }

    def read(self, name: str, rows: range | None = None, columns: range | None = None) -> Tensor:
        tensor = self.held[name]
        if rows is not None:
            tensor = tensor[rows.start : rows.stop]
        return tensor if columns is None else tensor[:, columns.start : columns.stop]


def check_weight(weight: QuantizedWeight, expected: Tensor) -> None:
    """Check the numbers of a weight, parts of them, and that its grid has the same ones."""
    height, width = weight.info.shape
    assert (weight.info.dtype, weight.info.shape) == ("F32", tuple(expected.shape))
    whole = weight.values(range(height), range(width))
    assert whole.dtype == torch.float32
    assert torch.equal(whole, expected)
    for rows, columns in (
        (range(3, height - 2), range(width)),
        (range(height), range(5, width - 3)),
        (range(height // 2, height // 2 + 1), range(width // 3, width // 3 + 1)),
    ):
        part = weight.values(rows, columns)
        assert torch.equal(part, expected[rows.start : rows.stop, columns.start : columns.stop])
    grid = weight.grid
    if grid is None:
        return
    blocks = grid.parameters()
    assert (blocks.scales.dtype, blocks.zero_points.dtype) == (torch.float32, torch.uint8)
    assert blocks.scales.shape == blocks.zero_points.shape == (height, -(-width // grid.block_size))
    codes = grid.codes(range(height))
    assert codes.dtype == torch.uint8
    assert int(codes.max()) < 2**grid.bits
    assert int(blocks.zero_points.max()) < 2**grid.bits
    assert torch.equal(grid.codes(range(2, 5)), codes[2:5])
    block = torch.arange(width) // grid.block_size
    numbers = (codes.float() - blocks.zero_points.float()[:, block]) * blocks.scales[:, block]
    if blocks.offsets is not None:
        numbers = numbers + blocks.offsets[:, block]
    if grid.order is not None:
        numbers = torch.empty_like(numbers).index_copy_(1, grid.order, numbers)
    assert torch.equal(numbers, expected)
