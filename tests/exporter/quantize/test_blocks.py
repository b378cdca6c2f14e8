"""Every packing, unpacked again by NumPy written from the operators' specification, and by ONNX Runtime itself."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from intaglio.contract import JOIN_BITS
from intaglio.exporter.passes.join_bits import join_function
from intaglio.exporter.quantize.formats.blocks import BlockFormat, QuantizedRows, pack, unpack
from intaglio.exporter.quantize.methods.rtn import grid, round_to_nearest
from intaglio.tests.exporter import drive
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FORMATS = [
    BlockFormat(bits, size, symmetric)
    for bits in (4, 5, 8)
    for size in (16, 32, 64, 128, 256)
    for symmetric in (True, False)
    if bits != 5 or size >= 32
]
OPSETS = {"": 21, "com.microsoft": 1, JOIN_BITS[0]: 1}
SHAPES = [(5, 64), (7, 300), (3, 33), (1, 16), (12, 256)]


def weight(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Return random values with a row of zeros, a block of zeros, and an outlier."""
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    values[rows // 2] = 0
    values[0, :16] = 0
    values[-1, -1] = 40.0
    return values


def by_the_specification(blocks: QuantizedRows) -> NDArray[np.float32]:
    """Unpack [N, KB * block_size] element by element, as docs/ContribOperators.md describes the bytes.

    Those of 5 bits are codes of 8 bits, as ``contract.JOIN_BITS`` says, with scales and zero points for such codes.
    """
    format = blocks.format
    codes, points = blocks.packed_codes().numpy(), blocks.packed_zero_points().numpy()
    low = blocks.packed_low_bits().numpy() if format.bits == 5 else codes
    scales = blocks.scales.numpy()
    rows, count = scales.shape
    values = np.zeros((rows, count * format.block_size), np.float32)
    for n in range(rows):
        for b in range(count):
            zero = 2 ** (format.bits - 1)
            if not format.symmetric:
                zero = points[n, b] if format.bits != 4 else (points[n, b // 2] >> (4 * (b % 2))) & 15
                zero = zero // 8 if format.bits == 5 else zero
            for i in range(format.block_size):
                code = codes[n, b, i] if format.bits == 8 else (codes[n, b, i // 2] >> (4 * (i % 2))) & 15
                if format.bits == 5:
                    code = 2 * code + (low[n, b, i // 32 * 4 + i % 4] >> (i % 32 // 4) & 1)
                values[n, b * format.block_size + i] = (float(code) - float(zero)) * scales[n, b]
    return values


@pytest.mark.parametrize("format", FORMATS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_packed_bytes_match_dequantize(format: BlockFormat, shape: tuple[int, int]) -> None:
    blocks = round_to_nearest(weight(*shape), format)
    width = format.block_size * (8 if format.bits == 8 else 4) // 8
    assert blocks.packed_codes().shape == (shape[0], format.blocks(shape[1]), width)
    expected = by_the_specification(blocks)
    assert np.array_equal(blocks.dequantize().numpy(), expected[:, : shape[1]])
    assert not expected[:, shape[1] :].any()  # the padding dequantizes to zero


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_rounding_errors_are_within_a_step(format: BlockFormat) -> None:
    values = weight(6, 300)
    blocks = round_to_nearest(values, format)
    step = blocks.scales.abs().repeat_interleave(format.block_size, 1)[:, :300]
    error = (blocks.dequantize() - values).abs()
    # Half a step inside the range; at its ends a symmetric grid lacks one code, and a zero point is a whole number.
    assert (error <= step * 1.01).all()
    assert (error <= step * 0.51).float().mean() > 0.9
    assert not blocks.dequantize()[3].any()  # zeros stay zeros


def test_searched_ranges_are_no_worse_than_full_ones() -> None:
    values, importance = weight(8, 256), torch.rand(256) + 0.01
    for format in FORMATS:
        full = round_to_nearest(values, format).dequantize() - values
        searched = round_to_nearest(values, format, importance).dequantize() - values
        assert ((searched.square() * importance).sum() <= (full.square() * importance).sum() * (1 + 1e-6)).item()


def test_scales_are_float16_numbers_and_never_vanish() -> None:
    scales, _ = grid(torch.tensor([[1e-9] * 16, [3.0] * 16, [0.0] * 16]), BlockFormat(4, 16, True))
    assert torch.equal(scales, scales.half().float())
    assert scales[0, 0] != 0
    assert scales[2, 0] == 0


def test_scales_of_5_bits_are_float16_numbers_once_they_are_stored() -> None:
    scales, _ = grid(torch.tensor([[1e-9] * 32, [3.0] * 32, [0.0] * 32, [2e-5] * 32]), BlockFormat(5, 32, True))
    assert torch.equal(scales / 8, (scales / 8).half().float())
    assert scales[0, 0] != 0
    assert scales[2, 0] == 0


def test_pack_and_unpack() -> None:
    codes = torch.randint(0, 16, (3, 10), dtype=torch.uint8)
    assert torch.equal(unpack(pack(codes, 4), 4), codes)
    assert pack(torch.tensor([[1, 2]], dtype=torch.uint8), 4).tolist() == [[0x21]]
    assert torch.equal(unpack(pack(codes, 8), 8), codes)


@pytest.mark.parametrize("format", FORMATS, ids=str)
@pytest.mark.parametrize("shape", [(7, 300), (9, 64), (3, 33)], ids=str)
def test_onnx_runtime_reads_the_same_weight(tmp_path: Path, format: BlockFormat, shape: tuple[int, int]) -> None:
    """Multiply an identity matrix to read the weight back; accuracy level 0 computes in float32."""
    rows, columns = shape
    blocks, five = round_to_nearest(weight(rows, columns), format), format.bits == 5
    tensors = {"codes": blocks.packed_codes(), "scales": blocks.scales / format.scaling}
    if not format.symmetric:
        tensors["zeros"] = blocks.packed_zero_points()
    nodes = [
        helper.make_node(
            "MatMulNBits", ["x", *tensors], ["y"], domain="com.microsoft",
            K=columns, N=rows, bits=8 if five else format.bits, block_size=format.block_size, accuracy_level=0,
        )
    ]  # fmt: skip
    if five:
        nodes[0].input[1] = "joined"
        nodes.insert(0, helper.make_node(JOIN_BITS[1], ["codes", "low_bits"], ["joined"], domain=JOIN_BITS[0]))
        tensors["low_bits"] = blocks.packed_low_bits()
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, rows])],
        [numpy_helper.from_array(value.contiguous().numpy(), name) for name, value in tensors.items()],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=[join_function(21)])
    onnx.save(model, tmp_path / "m.onnx")
    session = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    product = drive.run(session, {"x": np.eye(columns, dtype=np.float32)})[0]
    assert np.abs(product.T - blocks.dequantize().numpy()).max() <= 2e-5 * 40
