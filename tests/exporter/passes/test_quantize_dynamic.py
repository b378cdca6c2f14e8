"""Integer matrix multiplications: layout against NumPy's dequantization, graph against NumPy's integer arithmetic."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from intaglio.errors import UnsupportedError
from intaglio.exporter.graph import ExportGraph
from intaglio.exporter.passes.quantize_dynamic import quantize_dynamic
from intaglio.exporter.quantize.formats.blocks import channel_format
from intaglio.exporter.quantize.formats.channels import ChannelWeight
from intaglio.exporter.quantize.formats.scheme import Scheme
from intaglio.exporter.quantize.methods.row_sources import Rounded
from intaglio.exporter.weights import Stacked, Stored, Transposed
from intaglio.models.checkpoint import Checkpoint
from intaglio.runtime.graph.unsigned_weights import unsigned_model
from intaglio.runtime.kernels import saturates
from intaglio.tests import tiny
from intaglio.tests.exporter import drive
from numpy.typing import NDArray

GATE, UP, DOWN = (f"model.layers.1.mlp.{name}_proj.weight" for name in ("gate", "up", "down"))
BIAS = "model.layers.1.self_attn.q_proj.bias"
QUERY = "model.layers.1.self_attn.q_proj.weight"

Array = NDArray[Any]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """The hidden size is 64; the MLP's size 97 is odd and not a multiple of any block size."""
    return Checkpoint(tiny.write(tmp_path / "model", tiny.config("qwen2", intermediate_size=97)))


def stored(checkpoint: Checkpoint, name: str) -> Stored:
    return Stored(name, checkpoint.tensors[name].shape)


def channels(inner: Stored | Stacked) -> Rounded:
    return Rounded(inner, Scheme(channel_format(inner.shape[1]), "rtn"))


def float_graph(checkpoint: Checkpoint, names: list[str], bias: str | None = None) -> ExportGraph:
    """Multiply one input x [B, S, K] by weights, each an output by its name; a bias is added to the first."""
    float32 = ir.TensorType(ir.DataType.FLOAT)
    x = ir.Value(name="x", type=float32, shape=ir.Shape(["B", "S", checkpoint.tensors[names[0]].shape[1]]))
    graph = ExportGraph(
        ir.Model(ir.Graph([x], [], nodes=[], opset_imports={"": 23, "com.microsoft": 1}), ir_version=11)
    )
    for name in names:
        weight = graph.add_weight(name, Transposed(stored(checkpoint, name)).stream, float32)
        output = _append(graph, "MatMul", [x, weight])
        if bias is not None and name == names[0]:
            output = _append(graph, "Add", [output, graph.add_weight(bias, stored(checkpoint, bias).stream, float32)])
        output.name, output.type = name.split(".")[-2], float32
        output.shape = ir.Shape(["B", "S", checkpoint.tensors[name].shape[0]])
        graph.model.graph.outputs.append(output)
    return graph


def _append(graph: ExportGraph, op_type: str, inputs: list[ir.Value]) -> ir.Value:
    node = ir.Node("", op_type, inputs, metadata_props={"scope": "here"})
    graph.model.graph.append(node)
    return node.outputs[0]


def materialized(graph: ExportGraph, checkpoint: Checkpoint) -> dict[str, Array]:
    """Give every initializer its values, and return them."""
    made = {}
    for name, stream in graph.streams.items():
        array = drive.streams(stream.recipe, checkpoint)[stream.key]
        assert array.shape == stream.shape
        graph.model.graph.initializers[name].const_value = ir.tensor(array, name=name)
        made[name] = array
    return made


def run(graph: ExportGraph, x: Array, unsigned: bool | None = None) -> list[Array]:
    """Run the graph; ``unsigned``: on unsigned weights, as the runtime does by default where signed ones saturate."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    model = ir.to_proto(graph.model).SerializeToString()
    if saturates() if unsigned is None else unsigned:
        model = unsigned_model(model)
    return drive.run(ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]), {"x": x})


def quantized(
    checkpoint: Checkpoint, names: list[str], bias: str | None = None
) -> tuple[ExportGraph, dict[str, Array]]:
    graph = float_graph(checkpoint, names, bias)
    assert quantize_dynamic(graph, channels) == len(names)
    return graph, materialized(graph, checkpoint)


def activations(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def integer_matmul(x: Array, codes: Array, scales: Array) -> Array:
    """Compute the expected outputs in integer arithmetic, one token at a time."""
    largest = np.maximum(np.abs(x).max(-1, keepdims=True), np.float32(1e-30))
    tokens = np.rint(x / largest / np.float32(1 / 127)).astype(np.int32)
    found: Array = (tokens @ codes.astype(np.int32)).astype(np.float64) * (largest / 127.0) * scales
    return found


@pytest.mark.parametrize("name", [GATE, DOWN])
def test_codes_and_scales_are_the_weight(name: str, checkpoint: Checkpoint) -> None:
    weight = checkpoint.tensor(name).numpy()
    graph, made = quantized(checkpoint, [name])
    codes, scales = made[name.removesuffix("weight") + "codes"], made[name.removesuffix("weight") + "scales"]
    assert (codes.dtype.name, codes.shape) == ("int8", weight.shape[::-1])
    assert (scales.dtype.name, scales.shape) == ("float32", weight.shape[:1])
    steps = np.abs(codes.astype(np.float32) * scales - weight.T) / np.abs(scales)
    assert steps[codes < 127].max() < 0.55  # half a step, and what the scale lost in float16
    assert steps.max() < 1.1
    assert (codes.min(0) == -128).all()  # a signed scale puts a row's largest value on the last code
    assert graph.model.graph.initializers[name.removesuffix("weight") + "codes"].dtype == ir.DataType.INT8


@pytest.mark.parametrize("shape", [(1, 1, 64), (2, 7, 64), (3, 1, 64)])
@pytest.mark.parametrize("unsigned", [False, True])
def test_the_graph_multiplies_integers(shape: tuple[int, int, int], unsigned: bool, checkpoint: Checkpoint) -> None:
    if saturates() and not unsigned:
        pytest.skip("this processor adds products of unsigned and signed bytes in 16 bits")
    graph, made = quantized(checkpoint, [GATE, UP])
    x = activations(*shape)
    for found, name in zip(run(graph, x, unsigned), (GATE, UP), strict=True):
        stem = name.removesuffix("weight")
        np.testing.assert_allclose(
            found, integer_matmul(x, made[stem + "codes"], made[stem + "scales"]), rtol=1e-5, atol=1e-5
        )


def test_outputs_are_close_to_the_float_graph(checkpoint: Checkpoint) -> None:
    plain = float_graph(checkpoint, [QUERY], BIAS)
    materialized(plain, checkpoint)
    graph, _ = quantized(checkpoint, [QUERY], BIAS)
    x = activations(2, 5, 64)
    (expected,), (found,) = run(plain, x), run(graph, x)
    error = np.sqrt(np.square(found - expected).mean() / np.square(expected).mean())
    assert 1e-3 < error < 2e-2


def test_an_outlier_does_not_disturb_another_token(checkpoint: Checkpoint) -> None:
    graph, _ = quantized(checkpoint, [GATE])
    x = activations(2, 6, 64)
    wild = x.copy()
    wild[0, 2, 5], wild[1, 0] = 1e6, 0
    (calm,), (disturbed,) = run(graph, x), run(graph, wild)
    same = np.ones((2, 6), bool)
    same[0, 2] = same[1, 0] = False
    np.testing.assert_array_equal(calm[same], disturbed[same])
    assert (disturbed[1, 0] == 0).all()
    assert not np.array_equal(calm[0, 2], disturbed[0, 2])


@pytest.mark.parametrize("magnitude", [1e-20, 1e20])
def test_the_error_does_not_depend_on_a_tokens_magnitude(magnitude: float, checkpoint: Checkpoint) -> None:
    graph, _ = quantized(checkpoint, [GATE])
    x = activations(1, 3, 64)
    (expected,), (found,) = run(graph, x), run(graph, (x * np.float32(magnitude)).astype(np.float32))
    np.testing.assert_allclose(found, expected * np.float32(magnitude), rtol=2e-2, atol=0.02 * magnitude)


def test_projections_of_one_input_share_its_codes(checkpoint: Checkpoint) -> None:
    graph, _ = quantized(checkpoint, [GATE, UP])
    kinds = [node.op_type for node in graph.model.graph]
    assert kinds.count("QuantizeLinear") == 1
    assert kinds.count("MatMulIntegerToFloat") == 2
    assert "MatMul" not in kinds
    assert {node.metadata_props["scope"] for node in graph.model.graph} == {"here"}


def test_other_weights_stay_in_float(checkpoint: Checkpoint) -> None:
    graph = float_graph(checkpoint, [GATE, UP])

    def choose(weight: Stored | Stacked) -> Rounded | None:
        return channels(weight) if GATE in weight.sources else None

    assert quantize_dynamic(graph, choose) == 1
    assert [node.op_type for node in graph.model.graph].count("MatMul") == 1
    assert UP in graph.streams
    assert GATE not in graph.streams


def test_stacked_weights_are_channels_too(checkpoint: Checkpoint) -> None:
    both = Stacked((stored(checkpoint, GATE), stored(checkpoint, UP)))
    weight = ChannelWeight(channels(both))
    found = {key: torch.from_numpy(array) for key, array in drive.streams(weight, checkpoint).items()}
    codes, scales = found["codes"].float(), found["scales"]
    wanted = torch.cat([checkpoint.tensor(GATE), checkpoint.tensor(UP)])
    assert codes.shape == weight.codes.shape == (64, 194)
    error = ((codes * scales).t() - wanted).norm() / wanted.norm()
    assert 0 < error < 0.02
    facts = weight.write(checkpoint, lambda key, piece: None)["codes"].quantization
    assert facts is not None
    assert facts.error == pytest.approx(error.item(), rel=1e-3)
    assert (facts.bits, facts.block_size, facts.method) == (8, 64, "rtn")
    assert weight.codes.sources == (GATE, UP)


def test_a_row_of_zeros_stays_zero(tmp_path: Path) -> None:
    values = tiny.config("qwen2")
    tensors = tiny.weights(values)
    tensors[GATE][3] = 0
    checkpoint = Checkpoint(tiny.write(tmp_path / "model", values, tensors=tensors))
    graph, made = quantized(checkpoint, [GATE])
    assert (made[GATE.removesuffix("weight") + "codes"][:, 3] == 0).all()
    (found,) = run(graph, activations(1, 4, 64))
    assert (found[..., 3] == 0).all()
    assert (found[..., 2] != 0).all()


def test_a_damaged_weight_is_named(tmp_path: Path) -> None:
    values = tiny.config("qwen2")
    tensors = tiny.weights(values)
    tensors[GATE][3, 5] = torch.nan
    checkpoint = Checkpoint(tiny.write(tmp_path / "model", values, tensors=tensors))
    with pytest.raises(UnsupportedError, match=rf"{GATE}: holds NaN or infinite values"):
        drive.streams(ChannelWeight(channels(stored(checkpoint, GATE))), checkpoint)


def test_the_same_weight_gives_the_same_bytes(checkpoint: Checkpoint) -> None:
    first, second = (quantized(checkpoint, [GATE])[1] for _ in range(2))
    assert {name: array.tobytes() for name, array in first.items()} == {
        name: array.tobytes() for name, array in second.items()
    }
