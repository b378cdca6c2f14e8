"""Integer matrix multiplications on unsigned weights: the same numbers, without saturation."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from intaglio.runtime import kernels
from intaglio.runtime.graph.unsigned_weights import SIGN_BIT, unsigned_model
from onnx import TensorProto, helper, numpy_helper

ROWS, COLUMNS = 256, 8


def model(*, zero_point: bool = False) -> onnx.ModelProto:
    """Return two multiplications by one weight of -128, whose products saturate in 16 bits, and one by another."""
    codes = np.full((ROWS, COLUMNS), -128, np.int8)
    arrays = {"codes": codes, "others": -1 - codes, "step": np.float32(1), "zero": np.uint8(0), "none": np.int8(0)}
    rest = ["step", "step", "zero", *(["none"] if zero_point else [])]
    nodes = [
        helper.make_node("MatMulIntegerToFloat", ["x", name, *rest], [out], domain="com.microsoft")
        for name, out in (("codes", "a"), ("codes", "b"), ("others", "c"))
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [2, ROWS])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, COLUMNS]) for name in "abc"],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    )


def test_the_result_is_exact_on_every_processor() -> None:
    data = unsigned_model(model().SerializeToString())
    found = onnx.load_from_string(data).graph
    assert [node.op_type for node in found.node] == ["Cast", "BitwiseXor"] * 2 + ["MatMulIntegerToFloat"] * 3
    x = np.full((2, ROWS), 255, np.uint8)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    for array, weight in zip(session.run(None, {"x": x}), (-128, -128, 127), strict=True):
        assert (np.asarray(array) == 255 * weight * ROWS).all()


def test_weights_with_a_zero_point_of_their_own_stay_as_they_are() -> None:
    before = model(zero_point=True).SerializeToString()
    assert SIGN_BIT not in unsigned_model(before)
    assert onnx.load_from_string(unsigned_model(before)) == onnx.load_from_string(before)


@pytest.mark.parametrize(
    ("machine", "instructions", "wrong"),
    [
        ("x86_64", "AVX2", True),
        ("AMD64", None, True),
        ("x86_64", "AVX-VNNI", False),
        ("x86_64", "AVX512-VNNI", False),
        ("x86_64", "AMX", False),
        ("aarch64", "NEON", False),
        ("arm64", None, False),
    ],
)
def test_processors(monkeypatch: pytest.MonkeyPatch, machine: str, instructions: str | None, wrong: bool) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(kernels, "instructions", lambda: instructions)
    assert kernels.saturates() is wrong
