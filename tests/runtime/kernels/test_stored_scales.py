"""The kernels read float16 scales as they are stored, with unchanged results."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from intaglio.exporter import QuantizeOptions, quantize
from intaglio.runtime import TextGenerator, kernels, load
from intaglio.runtime.graph.graph import Graph, changed_graph
from intaglio.runtime.kernels.edits.stored_scales import READERS, use_stored_scales
from intaglio.tests import tiny
from intaglio.tests.files.artifact_files import data_of, graph_of
from intaglio.tests.runtime import fakes
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..conftest import changed_model, run_session
from .test_matmul import CHECKPOINT, Case, needs_kernels

Floats = NDArray[np.float32]
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
VOCAB, BLOCKS = 37, 3


def session(model: onnx.ModelProto, own: bool = True) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if own:
        options.add_session_config_entry("intaglio.MatMulNBits", "1")
        options.register_custom_ops_library(str(kernels.library()))
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def half_scales(case: Case) -> onnx.ModelProto:
    """Return a model whose float16 scales are cast to float32, as the exporter writes it."""
    model = onnx.load_from_string(case.model())
    graph = model.graph
    (scales,) = [tensor for tensor in graph.initializer if tensor.name == "scales"]
    halves = numpy_helper.to_array(scales).astype(np.float16)
    scales.CopyFrom(numpy_helper.from_array(halves, "halves"))
    graph.node.insert(0, helper.make_node("Cast", ["halves"], ["scales"], to=FLOAT))
    return model


def changed(model: onnx.ModelProto) -> onnx.ModelProto:
    return changed_model(model, use_stored_scales)


def table(
    bits: int, size: int, halves: bool, rows: bool = True, width: int = BLOCKS, **attributes: int
) -> onnx.ModelProto:
    """Return a lookup of [V, blocks, bytes], as exported, or of [V, bytes]; attributes override its own."""
    random = np.random.default_rng(bits * size)
    codes = random.integers(0, 256, (VOCAB, width, size * bits // 8), dtype=np.uint8)
    scales = random.uniform(-0.01, 0.01, (VOCAB, width, 1)).astype(np.float16)
    scales[:3, 0, 0] = np.array([6e-8, 1e-5, 65504], dtype=np.float16)  # the least, one that is not normal, the most
    if not rows:
        codes, scales = codes.reshape(VOCAB, -1), scales.reshape(VOCAB, -1)
    given: dict[str, Any] = {
        "bits": bits,
        "block_size": size,
        "gather_axis": 0,
        "quantize_axis": codes.ndim - 1,
    } | attributes
    stored = scales if halves else scales.astype(np.float32)
    node = helper.make_node("GatherBlockQuantized", ["codes", "ids", "scales"], ["y"], domain="com.microsoft", **given)
    graph = helper.make_graph(
        [node],
        "lookup",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["a", "b"])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(codes, "codes"), numpy_helper.from_array(stored, "scales")],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@needs_kernels
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [16, 32, 128])
def test_products_are_the_same_bit_for_bit(bits: int, block: int) -> None:
    model = half_scales(Case(37, 200, bits, block, zero_points=True, bias=True))
    direct = changed(model)
    assert [node.op_type for node in direct.graph.node] == ["MatMulNBits"]
    assert direct.graph.node[0].input[2] == "halves"
    x = np.random.default_rng(0).normal(size=(1, 20, 200)).astype(np.float32)
    assert np.array_equal(run_session(session(direct), {"x": x})[0], run_session(session(model), {"x": x})[0])


@needs_kernels
@pytest.mark.parametrize("rows", [True, False], ids=["in blocks", "plain"])
@pytest.mark.parametrize("halves", [True, False], ids=["float16", "float32"])
@pytest.mark.parametrize(("bits", "size"), [(4, 16), (4, 32), (8, 32), (8, 128)])
def test_embedding_rows_are_onnxruntimes_bit_for_bit(bits: int, size: int, halves: bool, rows: bool) -> None:
    ids = np.array([[0, 1, 2, VOCAB - 1, -1], [-VOCAB, 5, 5, 20, 1]] * 9, dtype=np.int64)
    theirs = run_session(session(table(bits, size, halves=False, rows=rows), own=False), {"ids": ids})[0]
    ours = run_session(session(table(bits, size, halves, rows)), {"ids": ids})[0]
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape
    assert np.array_equal(ours, theirs)


@needs_kernels
def test_no_indices_give_no_rows() -> None:
    found = run_session(session(table(4, 32, halves=True)), {"ids": np.zeros((2, 0), dtype=np.int64)})[0]
    assert found.shape == (2, 0, BLOCKS, 32)


@needs_kernels
@pytest.mark.parametrize("index", [VOCAB, -VOCAB - 1])
def test_an_index_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(Exception, match=f"input indices has the index {index} at 1; data has {VOCAB} rows"):
        run_session(session(table(4, 32, halves=True)), {"ids": np.array([[1, index]])})


@needs_kernels
@pytest.mark.parametrize("other", [{"gather_axis": 1}, {"bits": 2}, {"block_size": 8}, {"quantize_axis": 0}], ids=str)
def test_unsupported_lookups_are_refused(other: dict[str, int]) -> None:
    arguments: dict[str, Any] = {"bits": 4, "size": 32, "halves": True} | other
    ((name, value),) = other.items()
    with pytest.raises(Exception, match=f"intaglio: GatherBlockQuantized: attribute {name} is {value}; it must be"):
        session(table(**arguments))


@needs_kernels
def test_scales_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        Exception, match=r"scales has the shape \[37, 3, 1\]; it must be the shape of data in blocks = \[37, 3, 2\]"
    ):
        run_session(session(table(4, 32, halves=True, block_size=16)), {"ids": np.array([[1]])})


def test_a_cast_with_other_readers_stays() -> None:
    model = half_scales(Case(16, 64, 4, 32, zero_points=False, bias=False))
    model.graph.node.append(helper.make_node("Identity", ["scales"], ["seen"]))
    assert [node.op_type for node in changed(model).graph.node] == ["Cast", "MatMulNBits", "Identity"]
    model.graph.node.pop()
    model.graph.output.append(helper.make_tensor_value_info("scales", FLOAT, None))
    assert [node.op_type for node in changed(model).graph.node] == ["Cast", "MatMulNBits"]


def test_scales_that_are_not_stored_as_float16_stay() -> None:
    computed = half_scales(Case(16, 64, 4, 32, zero_points=False, bias=False))
    (halves,) = [tensor for tensor in computed.graph.initializer if tensor.name == "halves"]
    computed.graph.initializer.remove(halves)
    computed.graph.input.append(helper.make_tensor_value_info("halves", HALF, halves.dims))
    assert changed(computed) == computed
    plain = onnx.load_from_string(Case(16, 64, 4, 32, zero_points=False, bias=False).model())
    assert changed(plain) == plain
    with pytest.raises(ValueError, match="not a protobuf message"):
        Graph(b"\x0a\x05abc")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scales") / "int4"
    quantize(CHECKPOINT, out, precision="int4", options=QuantizeOptions(method="rtn"))
    return out


def test_an_artifacts_graph_loses_its_casts_of_scales(artifact: Path) -> None:
    plain = onnx.load(graph_of(artifact), load_external_data=False)
    data, weights = changed_graph(graph_of(artifact), data_of(artifact), [use_stored_scales])
    graph = onnx.load_from_string(data).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    taken = [types.get(node.input[2]) for node in graph.node if node.op_type.encode() in READERS]
    assert weights == artifact / "onnx"
    assert taken
    assert set(taken) == {HALF}
    assert graph.initializer == plain.graph.initializer
    assert _kinds(plain.graph) - _kinds(graph) == Counter(Cast=len(set(_scales(graph))))
    assert not _kinds(graph) - _kinds(plain.graph)


@needs_kernels
def test_the_weights_are_found_through_links_as_in_the_hubs_cache(artifact: Path, tmp_path: Path) -> None:
    """Check that the kernels run: if the weights were not found, ONNX Runtime would silently replace them."""
    snapshot = fakes.hub_snapshot(artifact, tmp_path)
    found, wanted = load(snapshot), load(artifact)
    assert isinstance(found, TextGenerator)
    assert isinstance(wanted, TextGenerator)
    assert found.session.intaglio_kernels == wanted.session.intaglio_kernels == ("MatMulNBits", "GroupQueryAttention")
    assert found.generate([5, 6], max_new_tokens=5) == wanted.generate([5, 6], max_new_tokens=5)


@needs_kernels
def test_windows_and_stored_scales_go_together(tmp_path: Path) -> None:
    config = tiny.config("exaone4", max_position_embeddings=512)
    source = tiny.write(tmp_path / "source", config, tokenizer=True)
    quantize(source, tmp_path / "int8", precision="int8", options=QuantizeOptions(method="rtn"))
    ours, theirs = (load(tmp_path / "int8", kernels=choice) for choice in ("auto", "onnxruntime"))
    assert isinstance(ours, TextGenerator)
    assert isinstance(theirs, TextGenerator)
    assert ours.session.windowed
    assert ours.session.intaglio_kernels == ("MatMulNBits", "GroupQueryAttention")
    prompt = list(range(5, 40))
    assert ours.generate(prompt, max_new_tokens=1).token_ids == theirs.generate(prompt, max_new_tokens=1).token_ids


def _kinds(graph: Any) -> Counter[str]:
    return Counter(node.op_type for node in graph.node)


def _scales(graph: Any) -> list[str]:
    return [node.input[2] for node in graph.node if node.op_type.encode() in READERS]
