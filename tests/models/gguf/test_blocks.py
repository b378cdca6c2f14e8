"""Blocks of each type are read as gguf-py reads them, bit for bit, whatever bits they have."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from intaglio.errors import CheckpointError
from intaglio.models.gguf.header import StoredTensor
from intaglio.models.gguf.types import BLOCK_TYPES, UNREADABLE
from intaglio.models.gguf.weights import GGUFTensors, GGUFWeight, quantized_weights

QUANTIZED = {kind.name: (number, kind) for number, kind in BLOCK_TYPES.items() if kind.grid is not None}
ROWS, BLOCKS, BEFORE = 37, 3, 5


def random_blocks(name: str, seed: int = 0) -> np.ndarray:
    """Return random bytes [ROWS, bytes of a row], with zeros where they would be no finite numbers."""
    number, kind = QUANTIZED[name]
    data = np.random.default_rng(seed).integers(0, 256, (ROWS, BLOCKS * kind.nbytes), dtype=np.uint8)
    with np.errstate(all="ignore"):
        values = gguf.quants.dequantize(data, gguf.GGMLQuantizationType(number))
    data.reshape(ROWS, BLOCKS, -1)[~np.isfinite(values).reshape(ROWS, BLOCKS, -1).all(2)] = 0
    return data


def weight(path: Path, name: str, data: np.ndarray) -> GGUFWeight:
    _, kind = QUANTIZED[name]
    path.write_bytes(bytes(BEFORE) + data.tobytes())
    assert kind.grid is not None
    shape = (ROWS, BLOCKS * kind.elements)
    return GGUFWeight("w", StoredTensor(path, kind, shape, BEFORE), kind.grid)


def test_the_table_has_every_type_of_gguf_py() -> None:
    theirs = {int(kind): kind.name for kind in gguf.GGMLQuantizationType}
    ours = {number: kind.name for number, kind in BLOCK_TYPES.items()} | dict(UNREADABLE)
    assert theirs.items() <= ours.items()
    assert not BLOCK_TYPES.keys() & UNREADABLE.keys()
    sizes = {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()}
    assert all((kind.elements, kind.nbytes) == sizes[number] for number, kind in BLOCK_TYPES.items())


@pytest.mark.parametrize("name", QUANTIZED)
def test_values_equal_gguf_py_to_the_last_bit(name: str, tmp_path: Path) -> None:
    data = random_blocks(name)
    expected = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name])
    found = weight(tmp_path / "w", name, data)
    width = expected.shape[1]
    values = found.values(range(ROWS), range(width)).numpy()
    assert values.tobytes() == np.ascontiguousarray(expected).tobytes()
    assert (found.format, found.info.shape, found.stored_bytes) == (name, expected.shape, data.size)


@pytest.mark.parametrize("name", QUANTIZED)
def test_codes_and_parameters_give_the_values(name: str, tmp_path: Path) -> None:
    data = random_blocks(name, seed=1)
    expected = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name])
    grid = weight(tmp_path / "w", name, data).grid
    blocks = grid.parameters()
    codes = grid.codes(range(ROWS))
    assert codes.dtype == blocks.zero_points.dtype == torch.uint8
    assert int(codes.max()) < 2**grid.bits
    assert int(blocks.zero_points.max()) < 2**grid.bits
    steps = codes.float().reshape(ROWS, -1, grid.block_size) - blocks.zero_points[..., None].float()
    numbers = blocks.scales[..., None] * steps
    if blocks.offsets is not None:
        numbers = numbers + blocks.offsets[..., None]
    assert np.array_equal(numbers.reshape(ROWS, -1).numpy(), expected)


@pytest.mark.parametrize("name", QUANTIZED)
def test_ranges_are_slices_of_the_whole(name: str, tmp_path: Path) -> None:
    found = weight(tmp_path / "w", name, random_blocks(name, seed=2))
    width = found.info.shape[1]
    whole, codes = found.values(range(ROWS), range(width)), found.codes(range(ROWS))
    for rows, columns in (
        (range(3, 9), range(5, width - 7)),
        (range(ROWS), range(32, 33)),
        (range(4, 4), range(width)),
        (range(ROWS - 1, ROWS), range(width - 1, width)),
    ):
        part = found.values(rows, columns)
        assert torch.equal(part, whole[rows.start : rows.stop, columns.start : columns.stop])
        assert torch.equal(found.codes(rows), codes[rows.start : rows.stop])


def test_rows_are_unpacked_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = weight(tmp_path / "w", "Q6_K", random_blocks("Q6_K"))
    whole = found.values(range(ROWS), range(BLOCKS * 256)), found.codes(range(ROWS)), found.parameters().scales
    monkeypatch.setattr("intaglio.models.gguf.weights.CHUNK_BYTES", 2000)
    again = found.values(range(ROWS), range(BLOCKS * 256)), found.codes(range(ROWS)), found.parameters().scales
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q6_K", "IQ4_XS"])
def test_scales_that_are_no_numbers_are_refused(name: str, tmp_path: Path) -> None:
    data = np.full_like(random_blocks(name), 0xFF)  # a NaN as float16
    found = weight(tmp_path / "w", name, data)
    with pytest.raises(CheckpointError, match="tensor w has scales that are NaN or infinite; fetch the file again"):
        found.values(range(1), range(32))
    with pytest.raises(CheckpointError, match="tensor w has scales that are NaN or infinite"):
        found.parameters()


def test_a_file_that_became_shorter_is_refused(tmp_path: Path) -> None:
    found = weight(tmp_path / "w", "Q8_0", random_blocks("Q8_0"))
    (tmp_path / "w").write_bytes(bytes(100))
    with pytest.raises(CheckpointError, match=r"tensor w cannot be read \(it was shortened while it was read\); fetch"):
        found.codes(range(ROWS))
    (tmp_path / "w").unlink()
    with pytest.raises(CheckpointError, match="tensor w cannot be read"):
        found.codes(range(ROWS))


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "F64"])
def test_floats_are_read_in_ranges(name: str, tmp_path: Path) -> None:
    kind = next(kind for kind in BLOCK_TYPES.values() if kind.name == name)
    dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}[name]
    matrix = torch.randn(7, 12).to(dtype)
    (tmp_path / "w").write_bytes(bytes(BEFORE) + matrix.view(torch.uint8).numpy().tobytes())
    stored = {
        "matrix": StoredTensor(tmp_path / "w", kind, (7, 12), BEFORE),
        "vector": StoredTensor(tmp_path / "w", kind, (84,), BEFORE),
    }
    tensors = GGUFTensors(stored)
    assert quantized_weights(stored).weights == {}
    assert tensors.tensors["matrix"].dtype == name
    assert torch.equal(tensors.read("matrix"), matrix)
    assert torch.equal(tensors.read("matrix", range(2, 5), range(3, 4)), matrix[2:5, 3:4])
    assert torch.equal(tensors.read("vector", range(10, 20)), matrix.reshape(-1)[10:20])


def test_only_matrices_are_quantized(tmp_path: Path) -> None:
    _, kind = QUANTIZED["Q8_0"]
    with pytest.raises(CheckpointError, match=r"tensor n is of the type Q8_0 and has the shape \(64,\); only matrices"):
        quantized_weights({"n": StoredTensor(tmp_path, kind, (64,), 0)})
