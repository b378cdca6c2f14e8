"""Weights of 5 bits: intaglio's kernels read their two parts, and ONNX Runtime's have them joined."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from intaglio.contract import JOIN_BITS
from intaglio.exporter import QuantizeOptions, quantize
from intaglio.runtime import TextGenerator, load
from intaglio.runtime.graph.graph import changed_graph
from intaglio.runtime.kernels import changes_for
from intaglio.runtime.kernels.edits.low_bits import use_low_bits
from intaglio.tests.files.artifact_files import data_of, graph_of
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..conftest import changed_model, run_session
from .test_matmul import CHECKPOINT, Case, low_bits, needs_kernels, pack, session, upper_bits

DOMAIN, JOIN = JOIN_BITS
VOCAB, BLOCKS, SIZE = 37, 3, 64


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("five") / "int4"
    quantize(CHECKPOINT, out, options=QuantizeOptions(bits=(4, 5), windows=4))
    return out


def joined(case: Case) -> onnx.ModelProto:
    """Return a model that joins the parts of a case, as the exporter writes it, without the function."""
    model = onnx.load_from_string(case.model())
    (node,) = model.graph.node
    low = node.input.pop()
    while not node.input[-1]:
        node.input.pop()
    next(one for one in node.attribute if one.name == "bits").i = 8
    model.graph.node.insert(0, helper.make_node(JOIN, [node.input[1], low], ["codes"], domain=DOMAIN))
    model.graph.node[1].input[1] = "codes"
    return model


def changed(model: onnx.ModelProto) -> onnx.ModelProto:
    return changed_model(model, use_low_bits)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@needs_kernels
@pytest.mark.parametrize("extras", [False, True], ids=["symmetric", "zero points and bias"])
def test_the_parts_replace_the_joined_codes(extras: bool) -> None:
    case = Case(37, 200, 5, 64, extras, extras)
    direct = changed(joined(case))
    assert kinds(direct) == ["MatMulNBits"]
    x = np.random.default_rng(0).normal(size=(1, 20, 200)).astype(np.float32)
    found, wanted = (run_session(session(model), {"x": x})[0] for model in (direct.SerializeToString(), case.model()))
    assert np.array_equal(found, wanted)


def test_codes_that_something_else_reads_stay_joined() -> None:
    model = joined(Case(16, 64, 5, 32, zero_points=False, bias=False))
    model.graph.node.append(helper.make_node("Identity", ["codes"], ["seen"]))
    assert kinds(changed(model)) == [JOIN, "MatMulNBits", "Identity"]


@pytest.mark.parametrize("wrong", ["computed", "4 bits", "another domain", "three parts"])
def test_other_nodes_stay(wrong: str) -> None:
    model = joined(Case(16, 64, 5, 32, zero_points=False, bias=False))
    join, node = model.graph.node
    if wrong == "computed":
        (low,) = [tensor for tensor in model.graph.initializer if tensor.name == "low_bits"]
        model.graph.initializer.remove(low)
        model.graph.input.append(helper.make_tensor_value_info("low_bits", TensorProto.UINT8, low.dims))
    elif wrong == "4 bits":
        next(one for one in node.attribute if one.name == "bits").i = 4
    elif wrong == "another domain":
        join.domain = "other"
    else:
        join.input.append("B")
    assert changed(model) == model


@needs_kernels
def test_rows_of_an_embedding_are_those_of_8_bits() -> None:
    random = np.random.default_rng(0)
    codes = random.integers(0, 32, (VOCAB, BLOCKS * SIZE), dtype=np.uint8)
    scales = random.uniform(-0.01, 0.01, (VOCAB, BLOCKS, 1)).astype(np.float32)
    ids = np.array([[0, 1, VOCAB - 1, -1], [-VOCAB, 5, 5, 20]] * 9, dtype=np.int64)
    eight, five = (rows(codes, scales, bits) for bits in (8, 5))
    found = run_session(session(five), {"ids": ids})[0]
    assert np.array_equal(found, run_session(session(eight, own=False), {"ids": ids})[0])


def rows(codes: NDArray[np.uint8], scales: NDArray[np.float32], bits: int) -> bytes:
    """Return a lookup of codes of 5 bits: in two parts, or as codes of 8."""
    upper = pack(upper_bits(codes)) if bits == 5 else codes * 8
    tensors: dict[str, NDArray[Any]] = {"codes": upper.reshape(VOCAB, BLOCKS, -1), "scales": scales}
    inputs = ["codes", "ids", "scales"]
    if bits == 5:
        tensors["low"] = low_bits(codes, SIZE).reshape(VOCAB, BLOCKS, -1)
        inputs += ["", "low"]
    given: dict[str, Any] = {"bits": bits, "block_size": SIZE, "gather_axis": 0, "quantize_axis": 2}
    graph = helper.make_graph(
        [helper.make_node("GatherBlockQuantized", inputs, ["y"], domain="com.microsoft", **given)],
        "lookup",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["a", "b"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(tensor, name) for name, tensor in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return model


def test_an_artifacts_graph_reads_the_parts(artifact: Path) -> None:
    plain = onnx.load(graph_of(artifact), load_external_data=False)
    data, _ = changed_graph(graph_of(artifact), data_of(artifact), changes_for(("MatMulNBits",)))
    graph = onnx.load_from_string(data).graph
    before = Counter(node.op_type for node in plain.graph.node)
    assert before[JOIN] > 1
    assert JOIN not in {node.op_type for node in graph.node}
    names = {name for node in graph.node for name in node.input}
    assert {one.name for one in graph.initializer if one.name.endswith("low_bits")} <= names


@needs_kernels
def test_an_artifact_has_the_same_tokens_in_onnxruntime(artifact: Path) -> None:
    ours, theirs = load(artifact), load(artifact, kernels="onnxruntime")
    assert isinstance(ours, TextGenerator)
    assert isinstance(theirs, TextGenerator)
    assert ours.session.intaglio_kernels == ("MatMulNBits", "GroupQueryAttention")
    assert not theirs.session.intaglio_kernels
    prompt = list(range(5, 40))
    assert ours.generate(prompt, max_new_tokens=8).token_ids == theirs.generate(prompt, max_new_tokens=8).token_ids
