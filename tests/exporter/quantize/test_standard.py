"""Every layout of DequantizeLinear, unpacked with NumPy alone, holds the values of the blocks."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from intaglio.exporter.quantize.formats import standard as module
from intaglio.exporter.quantize.formats.blocks import BLOCK_SIZES, BlockFormat
from intaglio.exporter.quantize.formats.nbits import NBitsWeight
from intaglio.exporter.quantize.formats.scheme import Scheme
from intaglio.exporter.quantize.formats.standard import ColumnWeight, FlatWeight, RowWeight
from intaglio.exporter.quantize.formats.weight import CODES, SCALES, ZERO_POINTS, QuantizedWeight
from intaglio.exporter.quantize.methods.row_sources import Rounded
from intaglio.exporter.weights import Stacked, Stored
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests import tiny
from intaglio.tests.exporter import drive
from numpy.typing import NDArray

Array = NDArray[Any]
SHAPES = [(64, 96), (33, 99), (7, 100), (1, 33), (5, 1), (64, 31)]
NAME = "model.layers.0.mlp.down_proj.weight"


class One(Checkpoint):
    """A checkpoint of one tensor that is read in uneven chunks."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight

    def rows(self, name: str, chunk_bytes: int = 0) -> Any:
        start = 0
        for length in (3, 1, 20, 5, 1000):
            if start < len(self.weight):
                yield start, self.weight[start : start + length]
            start += length


def weight(shape: tuple[int, int]) -> torch.Tensor:
    """Return random values with blocks of zeros."""
    made = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    made[: shape[0] // 3, : shape[1] // 2] = 0
    return made


def collect(weight: QuantizedWeight, checkpoint: Checkpoint) -> dict[str, Array]:
    """Return each stream of a weight as a flat array, of as many elements as its shape says."""
    found = {key: array.reshape(-1) for key, array in drive.streams(weight, checkpoint).items()}
    streams = [weight.codes, weight.scales] + ([] if weight.format.symmetric else [weight.zero_points])
    if isinstance(weight, RowWeight) and not weight.format.symmetric:
        streams.append(weight.zero_point_columns)
    if isinstance(weight, FlatWeight):
        assert weight.format.bits == 4
    assert {key: array.size for key, array in found.items()} == {s.key: math.prod(s.shape) for s in streams}
    return found


def numbers(found: Array, shape: tuple[int, ...], format: BlockFormat, *, signed: bool) -> Array:
    """Return the numbers that an ONNX tensor of this shape with these bytes holds."""
    if format.bits == 4:
        found = np.stack([found & 15, found >> 4], -1).reshape(-1)
        assert (found[math.prod(shape) :] == 0).all()  # padding of the last byte
        found = found[: math.prod(shape)].astype(np.int32)
        if signed:
            found = np.where(found >= 8, found - 16, found)
    else:
        assert found.dtype == (np.int8 if signed else np.uint8)
    return found.reshape(shape).astype(np.int32)


def expected(matrix: torch.Tensor, checkpoint: Checkpoint, source: Rounded) -> Array:
    """Return the values of a weight in MatMulNBits' layout, unpacked here once more: float32 [N, K]."""
    format, weight = source.scheme.format, NBitsWeight(source)
    rows, blocks, found = weight.shape[0], weight.blocks, collect(weight, checkpoint)
    packed = found[CODES].reshape(rows, blocks, -1)
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(rows, blocks, -1) if format.bits == 4 else packed
    scales = found[SCALES].reshape(rows, blocks, 1)
    zeros = np.full((rows, blocks), format.middle)
    if not format.symmetric:
        stored = found[ZERO_POINTS].reshape(rows, -1)
        zeros = (np.stack([stored & 15, stored >> 4], -1).reshape(rows, -1) if format.bits == 4 else stored)[:, :blocks]
    values = (codes.astype(np.float32) - zeros[..., None].astype(np.float32)) * scales
    dequantized: Array = values.reshape(rows, -1)[:, : weight.shape[1]]
    assert np.abs(dequantized - matrix.numpy()).max() <= 0.6  # of numbers up to about 3, in four bits
    return dequantized


def spread(values: Array, block_size: int, length: int) -> Array:
    return np.repeat(values, block_size, 0)[:length].astype(np.float32)


FORMATS = [BlockFormat(bits, 32, symmetric) for bits in (4, 8) for symmetric in (True, False)]
FORMATS += [BlockFormat(4, size, symmetric=False) for size in BLOCK_SIZES if size != 32]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_every_layout(shape: tuple[int, int], format: BlockFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_ROWS", 6)
    matrix = weight(shape)
    checkpoint, (rows, columns) = One(matrix), shape
    source = Rounded(Stored(NAME, shape), Scheme(format, "rtn"))
    wanted, blocks, signed = expected(matrix, checkpoint, source), format.blocks(columns), format.symmetric
    by_column, by_row = (collect(layout(source), checkpoint) for layout in (ColumnWeight, RowWeight))

    codes = numbers(by_column[CODES], (columns, rows), format, signed=signed)
    scales = by_column[SCALES].reshape(blocks, rows)
    zeros = np.zeros_like(scales)
    if not format.symmetric:
        zeros = numbers(by_column[ZERO_POINTS], (blocks, rows), format, signed=False)
        np.testing.assert_array_equal(by_row[module.ZERO_POINT_COLUMNS], by_column[ZERO_POINTS])
        points = by_row[ZERO_POINTS]
        assert points.dtype == np.uint8
        np.testing.assert_array_equal(points.reshape(rows, blocks), zeros.T)
    found = (codes - spread(zeros, format.block_size, columns)) * spread(scales, format.block_size, columns)
    np.testing.assert_array_equal(found.T, wanted)

    np.testing.assert_array_equal(by_row[SCALES].reshape(rows, blocks), scales.T)
    if format.bits == 4:
        assert by_row[CODES].size == rows * ((columns + 1) // 2)
        width = (columns + 1) // 2 * 2
        padded = numbers(by_row[CODES], (rows, width), format, signed=signed)
        np.testing.assert_array_equal(padded[:, :columns], codes.T)
        assert (padded[:, columns:] == 0).all()
        flat = collect(FlatWeight(source), checkpoint)[CODES]
        np.testing.assert_array_equal(numbers(flat, shape, format, signed=signed), codes.T)
        if columns % 2 == 0:
            np.testing.assert_array_equal(by_row[CODES], flat)
    else:
        np.testing.assert_array_equal(numbers(by_row[CODES], shape, format, signed=signed), codes.T)


def test_stacked_weights(tmp_path: Path) -> None:
    """Stack rows of several tensors of a real file."""
    values = tiny.config("qwen2")
    checkpoint = Checkpoint(tiny.write(tmp_path, values))
    names = [f"model.layers.0.self_attn.{part}_proj.weight" for part in "qkv"]
    stacked = Stacked(tuple(Stored(name, checkpoint.tensors[name].shape) for name in names))
    format = BlockFormat(4, 32, symmetric=True)
    source = Rounded(stacked, Scheme(format, "rtn"))
    streams = collect(ColumnWeight(source), checkpoint)
    codes = numbers(streams[CODES], (64, 128), format, signed=True)
    scales = streams[SCALES].reshape(2, 128)
    found = codes * spread(scales, 32, 64)
    weights = torch.cat([checkpoint.tensor(name) for name in names])
    np.testing.assert_array_equal(found.T, expected(weights, checkpoint, source))
    entry = ColumnWeight(source).write(checkpoint, lambda key, piece: None)[CODES]
    assert entry.quantization is not None
    assert entry.quantization.error == pytest.approx(
        float(np.linalg.norm(found.T - weights.numpy()) / np.linalg.norm(weights.numpy())), rel=1e-4
    )
