"""Products and lookups whose inputs, outputs and attributes do not agree are refused; the message names both values.

Every case changes one thing of a node that runs. ONNX Runtime's kernel refuses the node too where it has one.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ..conftest import run_session
from .one_node import LARGE, Array, OneNode, at_odd_address, codes, ones, open_session
from .test_matmul import needs_kernels

# ---- MatMulNBits --------------------------------------------------------------------------------------------------

N, K, BLOCK = 48, 80, 32
FORMAT = {"bits": 4, "block_size": BLOCK, "accuracy_level": 4}
MATMUL = OneNode(
    "MatMulNBits",
    {"N": N, "K": K, **FORMAT},
    {
        "A": ones(1, 2, K),
        "B": codes(N, 3, 16),
        "scales": ones(N, 3),
        "zero_points": codes(N, 2),
        "g_idx": None,
        "bias": ones(N),
        "low_bits": None,
    },
    ["Y"],
    ["B", "scales", "zero_points", "bias", "low_bits"],
)
FIVE = MATMUL.changed({"bits": 5, "zero_points": codes(N, 3), "low_bits": codes(N, 3, 4)})
COMPUTED_BIAS = MATMUL.changed({"stored": ["B", "scales", "zero_points"]})
B_SHAPE = "[N, ceil(K / block_size), block_size * bits / 8]"
BLOCKS = "[N, ceil(K / block_size)]"
ZEROS = "[N, ceil(blocks * bits / 8)]"
MATMULS: dict[str, tuple[dict[str, Any], str]] = {
    "a large N": ({"N": LARGE}, f"input B has the shape [48, 3, 16]; it must be {B_SHAPE} = [{LARGE}, 3, 16]"),
    "N too small": ({"N": N - 1}, f"input B has the shape [48, 3, 16]; it must be {B_SHAPE} = [47, 3, 16]"),
    "a large K": ({"K": 2**40}, f"input B has the shape [48, 3, 16]; it must be {B_SHAPE} = [48, {2**35}, 16]"),
    "N that overflows": ({"N": 2**62}, f"attribute N is {2**62}; it must be from 1 to {2**48}"),
    "K that overflows": ({"K": 2**63 - 1}, f"attribute K is {2**63 - 1}; it must be from 1 to {2**48}"),
    "no N": ({"N": 0}, f"attribute N is 0; it must be from 1 to {2**48}"),
    "a negative K": ({"K": -K}, f"attribute K is -80; it must be from 1 to {2**48}"),
    "bits beyond int32": ({"bits": 2**32 + 4}, f"attribute bits is {2**32 + 4}; it must be from 4 to 8"),
    "no bits": ({"bits": 0}, "attribute bits is 0; it must be from 4 to 8"),
    "6 bits": ({"bits": 6}, "attribute bits is 6; it must be 4, 5 or 8"),
    "5 bits without the low ones": (
        {"bits": 5, "zero_points": codes(N, 3)},
        "input low_bits is missing; elements of 5 bits need it",
    ),
    "low bits of 4": ({"low_bits": codes(N, 3, 4)}, "input low_bits is given, and attribute bits is not 5"),
    "other bits": ({"bits": 8}, f"input B has the shape [48, 3, 16]; it must be {B_SHAPE} = [48, 3, 32]"),
    "blocks beyond int32": (
        {"block_size": 2**32 + 32},
        f"attribute block_size is {2**32 + 32}; it must be from 16 to 256",
    ),
    "blocks of 48": ({"block_size": 48}, "attribute block_size is 48; it must be a power of two"),
    "other blocks": ({"block_size": 16}, f"input B has the shape [48, 3, 16]; it must be {B_SHAPE} = [48, 5, 8]"),
    "weights of another layout": ({"weight_prepacked": 1}, "attribute weight_prepacked is 1; it must be 0"),
    "a float as N": ({"N": 48.0}, "attribute N is not an integer"),
    "a list as K": ({"K": [K]}, "attribute K is not an integer"),
    "codes without rows": ({"B": codes(0, 3, 16)}, f"input B has the shape [0, 3, 16]; it must be {B_SHAPE}"),
    "codes of two dimensions": ({"B": codes(N, 48)}, f"input B has the shape [48, 48]; it must be {B_SHAPE}"),
    "few scales": ({"scales": ones(N, 2)}, f"input scales has the shape [48, 2]; it must be {BLOCKS} = [48, 3]"),
    "flat scales": ({"scales": ones(N * 3 - 1)}, f"input scales has the shape [143]; it must be {BLOCKS} = [48, 3]"),
    "no scale": ({"scales": ones(0)}, f"input scales has the shape [0]; it must be {BLOCKS} = [48, 3]"),
    "scales of int32": (
        {"scales": ones(N, 3, dtype=np.int32)},
        "input scales has elements of int32; they must be float32 or float16",
    ),
    "few zero points": (
        {"zero_points": codes(N, 1)},
        f"input zero_points has the shape [48, 1]; it must be {ZEROS} = [48, 2]",
    ),
    "flat zero points": (
        {"zero_points": codes(95)},
        f"input zero_points has the shape [95]; it must be {ZEROS} = [48, 2]",
    ),
    "computed zero points": (
        {"stored": ["B", "scales", "bias"]},
        "input zero_points is computed; it must be a constant of the graph",
    ),
    "computed codes": ({"stored": ["scales"]}, "input B is computed; it must be a constant of the graph"),
    "a short bias": ({"bias": ones(1)}, "input bias has the shape [1]; it must be [N] = [48]"),
    "a bias of two dimensions": ({"bias": ones(1, N)}, "input bias has the shape [1, 48]; it must be [N] = [48]"),
    "a group index": (
        {"g_idx": np.zeros(K, np.int32)},
        "input g_idx is given, and rows in another order are not supported",
    ),
    "x of another width": (
        {"A": ones(1, 2, K - 1)},
        "input A has the shape [1, 2, 79]; its last dimension must be K = 80",
    ),
    "x without dimensions": ({"A": ones()}, "input A has the shape []; its last dimension must be K = 80"),
    "x of nine dimensions": (
        {"A": ones(*[1] * 8, K)},
        "input A has 9 dimensions; at most 8 are supported",
    ),
}


@needs_kernels
@pytest.mark.parametrize(("change", "message"), MATMULS.values(), ids=MATMULS.keys())
def test_matmul_nbits(change: dict[str, Any], message: str) -> None:
    MATMUL.is_refused(change, message)


@needs_kernels
def test_a_bias_that_is_computed_is_checked_in_every_call() -> None:
    for wrong in (ones(1), ones(0), ones(N, 1)):
        shape = ", ".join(map(str, wrong.shape))
        COMPUTED_BIAS.is_refused({"bias": wrong}, f"input bias has the shape [{shape}]; it must be [N] = [48]")
    assert np.allclose(COMPUTED_BIAS.run()[0], MATMUL.run(own=False)[0], rtol=1e-3)


@needs_kernels
def test_flat_scales_and_zero_points_are_those_in_two_dimensions() -> None:
    flat = MATMUL.changed({"scales": ones(N * 3), "zero_points": codes(N * 2)})
    assert np.array_equal(flat.run()[0], MATMUL.run()[0])


LOW_SHAPE = "[N, ceil(K / block_size), block_size / 8]"
FIVES: dict[str, tuple[dict[str, Any], str]] = {
    "small blocks": ({"block_size": 16}, "attribute block_size is 16; it must be 32 or more with 5 bits"),
    "few low bits": (
        {"low_bits": codes(N, 3, 3)},
        f"input low_bits has the shape [48, 3, 3]; it must be {LOW_SHAPE} = [48, 3, 4]",
    ),
    "low bits of fewer rows": (
        {"low_bits": codes(1, 3, 4)},
        f"input low_bits has the shape [1, 3, 4]; it must be {LOW_SHAPE} = [48, 3, 4]",
    ),
    "computed low bits": (
        {"stored": ["B", "scales", "zero_points", "bias"]},
        "input low_bits is computed; it must be a constant of the graph",
    ),
    "codes of 8 bits": (
        {"B": codes(N, 3, 32)},
        "input B has the shape [48, 3, 32]; it must be [N, ceil(K / block_size), block_size / 2] = [48, 3, 16]",
    ),
    "zero points of 4 bits": (
        {"zero_points": codes(N, 2)},
        "input zero_points has the shape [48, 2]; it must be [N, blocks] = [48, 3]",
    ),
}


@needs_kernels
@pytest.mark.parametrize(("change", "message"), FIVES.values(), ids=FIVES.keys())
def test_five_bits(change: dict[str, Any], message: str) -> None:
    assert FIVE.run()[0].shape == (1, 2, N)
    FIVE.is_refused(change, message)


# ---- MergedMatMulNBits --------------------------------------------------------------------------------------------


def matrix(number: int, n: int = N, k: int = K) -> dict[str, Array | None]:
    blocks = -(-k // BLOCK)
    values = {"B": codes(n, blocks, 16), "scales": ones(n, blocks), "zero_points": None, "bias": ones(n)}
    values |= {"low_bits": None}
    return {f"{name}{number}": value for name, value in values.items()}


def formats(*shapes: tuple[int, int]) -> dict[str, Any]:
    given = [{"N": n, "K": k, **FORMAT} for n, k in shapes]
    return {f"{name}{number}": value for number, one in enumerate(given) for name, value in one.items()}


NOTHING: dict[str, Array | None] = dict.fromkeys(("B2", "scales2", "zero_points2", "bias2", "low_bits2"))
MERGED = OneNode(
    "MergedMatMulNBits",
    {"matrices": 2, "swiglu": 0, **formats((N, K), (N, K))},
    {"x": ones(1, 2, K), "skip": ones(1, 2, K), "norm": ones(K), **matrix(0), **matrix(1), **NOTHING},
    ["y0", "y1", "", "sum"],
    ["B0", "scales0", "B1", "scales1", "B2", "scales2"],
)
LAYER = MERGED.changed({"matrices": 3, "swiglu": 1, **formats((N, K), (N, K), (K, N)), **matrix(2, K, N)}).changed(
    {"outputs": ["y0", "", "", "sum"]}
)
MERGES: dict[str, tuple[OneNode, dict[str, Any], str]] = {
    "no matrices": (MERGED, {"matrices": 0}, "attribute matrices is 0; it must be from 1 to 3"),
    "swiglu of one": (LAYER, {"matrices": 1}, "attribute matrices is 1; it must be from 2 to 3"),
    "many matrices": (MERGED, {"matrices": LARGE}, f"attribute matrices is {LARGE}; it must be from 1 to 3"),
    "too few matrices": (MERGED, {"matrices": 1}, "input B1 is given, and attribute matrices is smaller"),
    "too many matrices": (MERGED, {"matrices": 3, **formats((N, K), (N, K), (N, K))}, "input B2 is computed"),
    "swiglu of two": (MERGED, {"swiglu": 2}, "attribute swiglu is 2; it must be from 0 to 1"),
    "a large N": (MERGED, {"N1": LARGE}, f"input B1 has the shape [48, 3, 16]; it must be {B_SHAPE} = [{LARGE}, 3"),
    "another K": (
        MERGED,
        {**formats((N, K), (N, N)), **matrix(1, N, N)},
        "attribute K1 is 48; it must be that of K0, 80",
    ),
    "gate and up of other sizes": (
        LAYER,
        {**formats((N, K), (32, K), (K, 32)), **matrix(1, 32), **matrix(2, K, 32)},
        "attribute N1 is 32; it must be that of N0, 48",
    ),
    "down of another size": (
        LAYER,
        {**formats((N, K), (N, K), (K, 32)), **matrix(2, K, 32)},
        "attribute K2 is 32; it must be that of N1, 48",
    ),
    "a short bias": (MERGED, {"bias0": ones(1)}, "input bias0 has the shape [1]; it must be [N] = [48]"),
    "a short bias of down": (LAYER, {"bias2": ones(N)}, "input bias2 has the shape [48]; it must be [N] = [80]"),
    "a short norm": (MERGED, {"norm": ones(K - 1)}, "input norm has the shape [79]; it must be [K] = [80]"),
    "a norm of two dimensions": (MERGED, {"norm": ones(1, K)}, "input norm has the shape [1, 80]; it must be [K]"),
    "no norm": (MERGED, {"norm": None}, "input skip is given, and norm is missing"),
    "a short skip": (
        MERGED,
        {"skip": ones(1, 1, K)},
        "input skip has the shape [1, 1, 80]; it must be the shape of x = [1, 2, 80]",
    ),
    "skip of another rank": (
        MERGED,
        {"skip": ones(2, K)},
        "input skip has the shape [2, 80]; it must be the shape of x = [1, 2, 80]",
    ),
    "x of another width": (
        MERGED,
        {"x": ones(1, 2, N), "skip": ones(1, 2, N)},
        "input x has the shape [1, 2, 48]; its last dimension must be K = 80",
    ),
    "a sum of nothing": (MERGED, {"skip": None}, "output sum is read, and skip is missing"),
    "an output of no matrix": (MERGED, {"outputs": ["y0", "y1", "y2"]}, "output y2 is read, and it is not computed"),
    "a matrix without its output": (MERGED, {"outputs": ["y0"]}, "output y1 is missing"),
    "the gate's output": (LAYER, {"outputs": ["y0", "y1"]}, "output y1 is read, and it is not computed"),
    "an integer as epsilon": (MERGED, {"epsilon": 1}, "attribute epsilon is not a float"),
}


@needs_kernels
@pytest.mark.parametrize(("node", "change", "message"), MERGES.values(), ids=MERGES.keys())
def test_merged_matmul_nbits(node: OneNode, change: dict[str, Any], message: str) -> None:
    node.is_refused(change, message)


@needs_kernels
def test_the_unchanged_nodes_run() -> None:
    assert [y.shape for y in MERGED.run()] == [(1, 2, N), (1, 2, N), (1, 2, K)]
    assert [y.shape for y in LAYER.run()] == [(1, 2, K), (1, 2, K)]
    for node in (MERGED, LAYER):
        none = {name: ones(2**40, 0, K) for name in ("x", "skip")}
        assert {y.shape[:2] for y in node.changed(none).run()} == {(2**40, 0)}


# ---- GatherBlockQuantized -----------------------------------------------------------------------------------------

GATHER = OneNode(
    "GatherBlockQuantized",
    {"bits": 4, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 2},
    {
        "data": codes(9, 2, 16),
        "indices": np.array([[0, 8, -9]]),
        "scales": ones(9, 2, 1),
        "zero_points": None,
        "low_bits": None,
    },
    ["output"],
)
IN_BLOCKS = "it must be the shape of data in blocks = [9, 2, 1]"
GATHERS: dict[str, tuple[dict[str, Any], str]] = {
    "an index too large": ({"indices": np.array([1, 9])}, "input indices has the index 9 at 1; data has 9 rows"),
    "an index too small": ({"indices": np.array(-10)}, "input indices has the index -10 at 0; data has 9 rows"),
    "the least index": (
        {"indices": np.array([-(2**63)])},
        f"input indices has the index {-(2**63)} at 0; data has 9 rows",
    ),
    "no rows": (
        {"data": codes(0, 2, 16), "scales": ones(0, 2, 1)},
        "input indices has the index 0 at 0; data has 0 rows",
    ),
    "few scales": ({"scales": ones(9, 1, 1)}, f"input scales has the shape [9, 1, 1]; {IN_BLOCKS}"),
    "as many scales elsewhere": ({"scales": ones(2, 9, 1)}, f"input scales has the shape [2, 9, 1]; {IN_BLOCKS}"),
    "no scales": ({"scales": ones(9, 2, 0)}, f"input scales has the shape [9, 2, 0]; {IN_BLOCKS}"),
    "scales of uint8": (
        {"scales": codes(9, 2, 1)},
        "input scales has elements of uint8; they must be float32 or float16",
    ),
    "half a block": (
        {"data": codes(9, 2, 17)},
        "input data has 17 bytes in its last dimension, with block_size 32 and 4 bits",
    ),
    "another axis": (
        {"quantize_axis": 1},
        "attribute quantize_axis is 1; it must be the last axis of data, which has 3 dimensions",
    ),
    "an axis that overflows": ({"quantize_axis": 2**62}, f"attribute quantize_axis is {2**62}; it must be from 1 to 7"),
    "a block that overflows": ({"block_size": 2**62}, f"attribute block_size is {2**62}; it must be from 16 to"),
    "a block of 48": ({"block_size": 48}, "attribute block_size is 48; it must be a power of two"),
    "bits beyond int32": ({"bits": 2**32 + 4}, f"attribute bits is {2**32 + 4}; it must be from 4 to 8"),
    "6 bits": ({"bits": 6}, "attribute bits is 6; it must be 4, 5 or 8"),
    "5 bits without the low ones": ({"bits": 5}, "input low_bits is missing; elements of 5 bits need it"),
    "low bits of 4": ({"low_bits": codes(9, 2, 4)}, "input low_bits is given, and attribute bits is not 5"),
    "low bits of other blocks": (
        {"bits": 5, "low_bits": codes(9, 2, 2)},
        "input low_bits has the shape [9, 2, 2]; it must be the shape of data, in bits = [9, 2, 4]",
    ),
    "small blocks of 5 bits": (
        {"bits": 5, "block_size": 16, "low_bits": codes(9, 2, 4)},
        "attribute block_size is 16; it must be 32 or more with 5 bits",
    ),
    "zero points": ({"zero_points": codes(9, 2, 1)}, "input zero_points is given, and zero points are not supported"),
    "one dimension": (
        {"data": codes(9)},
        "attribute quantize_axis is 2; it must be the last axis of data, which has",
    ),
    "many dimensions": (
        {"indices": np.zeros((1,) * 7, np.int64)},
        "inputs data and indices have 3 and 7 dimensions; that is more than 9",
    ),
}


@needs_kernels
@pytest.mark.parametrize(("change", "message"), GATHERS.values(), ids=GATHERS.keys())
def test_gather_block_quantized(change: dict[str, Any], message: str) -> None:
    GATHER.is_refused(change, message)


@needs_kernels
def test_rows_without_elements_are_looked_up() -> None:
    """As in ONNX Runtime, with dimensions whose product overflows unless the 0 comes first."""
    empty = GATHER.changed({"data": codes(9, 0, 16), "scales": ones(9, 0, 1)})
    assert empty.run()[0].shape == empty.run(own=False)[0].shape == (1, 3, 0, 32)
    assert np.array_equal(GATHER.run()[0], GATHER.run(own=False)[0])


# ---- addresses ----------------------------------------------------------------------------------------------------


@needs_kernels
def test_an_output_at_an_odd_address_is_refused() -> None:
    session, x, y = MATMUL.session(), MATMUL.inputs["A"], at_odd_address(ones(1, 2, N))
    binding = session.io_binding()
    binding.bind_cpu_input("A", x)
    binding.bind_output("Y", "cpu", 0, np.float32, y.shape, y.ctypes.data)
    with pytest.raises(Exception, match="output Y begins at an address that is not a multiple of 4; store it at one"):
        session.run_with_iobinding(binding)


@needs_kernels
@pytest.mark.parametrize("name", ["B", "scales", "zero_points", "bias"])
def test_external_data_at_an_odd_offset(name: str, tmp_path: Path) -> None:
    """Bytes may lie anywhere; where floats lie at an odd address, ONNX Runtime's kernel is left to run."""
    value = MATMUL.inputs[name]
    assert value is not None
    model = onnx.load_from_string(MATMUL.model())
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    (tmp_path / "data").write_bytes(b"." + value.tobytes())
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, text in (("location", "data"), ("offset", "1"), ("length", str(value.nbytes))):
        tensor.external_data.add(key=key, value=text)
    onnx.save(model, tmp_path / "model.onnx")
    x = MATMUL.inputs["A"]
    assert x is not None
    if value.dtype == np.uint8:
        found = run_session(open_session(str(tmp_path / "model.onnx")), {"A": x})[0]
        assert np.array_equal(found, MATMUL.run()[0])
        return
    with pytest.raises(
        Exception, match=f"input {name} begins at an address that is not a multiple of 4; store it at one"
    ):
        open_session(str(tmp_path / "model.onnx"))
    assert run_session(open_session(str(tmp_path / "model.onnx"), own=False), {"A": x})[0].shape == (1, 2, N)
