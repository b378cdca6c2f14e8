"""The edits of a graph trust nothing in it: what they do not know stays as it is, or is refused with a ValueError."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from intaglio.runtime.graph.graph import Change, Graph, changed_graph
from intaglio.runtime.graph.sliding import with_window_caches
from intaglio.runtime.kernels.edits.int8_cache import use_int8_cache
from intaglio.runtime.kernels.edits.low_bits import use_low_bits
from intaglio.runtime.kernels.edits.merged_matmuls import merge_matmuls
from intaglio.runtime.kernels.edits.stored_scales import use_stored_scales
from onnx import TensorProto, helper

from ..conftest import changed_model
from .test_matmul import Case
from .test_merged_matmuls import NORM, PAIR, SWIGLU, kinds, model_of, skipping, small
from .test_stored_scales import half_scales

CHANGES: tuple[Change, ...] = (use_stored_scales, use_low_bits, merge_matmuls, use_int8_cache, with_window_caches)
KINDS = (
    "MatMulNBits",
    "GatherBlockQuantized",
    "GroupQueryAttention",
    "SkipSimplifiedLayerNormalization",
    "SimplifiedLayerNormalization",
    "Cast",
    "Sigmoid",
    "Mul",
)


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [([], []), (["x"], []), ([], ["y"]), ([""], [""]), (["x", "", ""], [""]), (["x"] * 3, ["y"] * 2 + [""])],
    ids=str,
)
def test_nodes_without_inputs_or_outputs_stay(kind: str, inputs: list[str], outputs: list[str], domain: str) -> None:
    model = model_of(PAIR, [NORM], SWIGLU, outputs=["hidden"])
    attributes: dict[str, Any] = (
        {"to": TensorProto.FLOAT} if kind == "Cast" else {"epsilon": 1e-5} if "Norm" in kind else {}
    )
    model.graph.node.append(helper.make_node(kind, inputs, outputs, domain=domain, **attributes))
    for change in CHANGES:
        if outputs[:2] == ["y", "y"] and change in (use_stored_scales, use_low_bits, merge_matmuls):
            with pytest.raises(ValueError, match="two nodes compute y"):
                changed_model(model, change)
        else:
            assert kinds(changed_model(model, change))[-1] in (kind, kind + "Int8", SWIGLU[-1].op_type)


def reading(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return the model with multiplications that read another value than x."""
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            node.input[0] = name
    return model


def with_bias() -> onnx.ModelProto:
    norm = skipping()
    norm.input.append("bias")
    return model_of([(small(0), "normed"), (small(1), "normed")], [norm], outputs=["y0", "y1"])


def with_axis(axis: int) -> onnx.ModelProto:
    norm = helper.make_node("SimplifiedLayerNormalization", ["x", "norm"], ["normed"], epsilon=1e-5, axis=axis)
    return model_of([(small(0), "normed"), (small(1), "normed")], [norm], outputs=["y0", "y1"])


def of_another_domain() -> onnx.ModelProto:
    norm = skipping()
    norm.domain = "elsewhere"
    return model_of([(small(0), "normed"), (small(1), "normed")], [norm], outputs=["y0", "y1"])


OTHER_NORMS: dict[str, Callable[[], onnx.ModelProto]] = {
    "the sum is read, and the norm elsewhere": lambda: model_of(
        [(small(0), "sum"), (small(1), "sum")],
        [skipping()],
        [helper.make_node("Add", ["normed", "normed"], ["n"])],
        outputs=["y0", "y1"],
    ),
    "a bias": with_bias,
    "another axis": lambda: with_axis(1),
    "another domain": of_another_domain,
}


@pytest.mark.parametrize("make", OTHER_NORMS.values(), ids=OTHER_NORMS.keys())
def test_norms_that_the_kernel_does_not_compute_stay(make: Callable[[], onnx.ModelProto]) -> None:
    found = changed_model(make(), merge_matmuls)
    (layer,) = (node for node in found.graph.node if node.op_type == "MergedMatMulNBits")
    assert layer.input[0] in ("normed", "sum")
    assert list(layer.input[1:3]) == ["", ""]
    assert any("LayerNormalization" in kind for kind in kinds(found))


def test_the_last_axis_is_merged() -> None:
    assert kinds(changed_model(with_axis(-1), merge_matmuls)) == ["MergedMatMulNBits"]


@pytest.mark.parametrize("place", [1, 2])
def test_products_of_three_values_are_no_swiglu(place: int) -> None:
    nodes = [helper.make_node(n.op_type, [*n.input, *n.input[:1]] if i == place else n.input, n.output)
             for i, n in enumerate(SWIGLU)]  # fmt: skip
    found = kinds(changed_model(model_of(PAIR, behind=nodes, outputs=["hidden"]), merge_matmuls))
    assert found == ["MergedMatMulNBits", "Sigmoid", "Mul", "Mul"]


def test_operators_of_other_domains_stay() -> None:
    model = half_scales(Case(16, 64, 4, 32, zero_points=False, bias=False))
    for node in model.graph.node:
        node.domain = "elsewhere"
    attention = helper.make_node("GroupQueryAttention", ["q"], ["z"], domain="elsewhere", local_window_size=4)
    model.graph.node.append(attention)
    for change in (use_stored_scales, merge_matmuls, use_int8_cache):
        assert changed_model(model, change) == model


def test_a_value_that_two_nodes_compute_is_refused() -> None:
    model = model_of(PAIR, outputs=["y0"])
    model.graph.node.append(helper.make_node("Neg", ["x"], ["y0"]))
    for change in (use_stored_scales, use_low_bits, merge_matmuls):
        with pytest.raises(ValueError, match="two nodes compute y0"):
            changed_model(model, change)


def test_attention_with_more_inputs_gets_no_int8_cache() -> None:
    node = helper.make_node("GroupQueryAttention", ["x"] * 10, ["y"], domain="com.microsoft")
    model = model_of(PAIR, outputs=["y0"])
    model.graph.node.append(node)
    with pytest.raises(ValueError, match="a node GroupQueryAttention has 10 inputs; at most 9 are known"):
        changed_model(model, use_int8_cache)


def test_thousands_of_nodes_in_reverse_order_are_sorted() -> None:
    count = 5000
    nodes = [helper.make_node("Neg", [f"v{n}"], [f"v{n + 1}"]) for n in reversed(range(count))]
    nodes.append(helper.make_node("Neg", ["loop"], ["loop"]))
    graph = Graph(helper.make_graph(nodes, "chain", [], []).SerializeToString())
    graph.sort()
    assert [node.inputs[0] for node in graph.nodes] == [b"v%d" % n for n in range(count)] + [b"loop"]


def test_fields_of_other_wire_types_are_no_inputs() -> None:
    """As protobuf reads them: a number in the place of a string is a field that nobody knows."""
    node = helper.make_node("Neg", ["x"], ["y"]).SerializeToString() + b"\x08\x01"
    graph = Graph(b"\x0a" + bytes([len(node)]) + node)
    assert graph.nodes[0].inputs == [b"x"]
    assert graph.message().endswith(b"\x08\x01")


def test_models_with_operators_of_their_own_or_two_graphs_are_refused(tmp_path: Path) -> None:
    model = model_of(PAIR, outputs=["y0"])
    whole = model.SerializeToString()
    body = [helper.make_node("Neg", ["A"], ["Y"])]
    function = helper.make_function("com.microsoft", "MatMulNBits", ["A"], ["Y"], body, model.opset_import)
    own, other = onnx.ModelProto.FromString(whole), onnx.ModelProto.FromString(whole)
    own.functions.append(function)
    other.functions.append(helper.make_function("intaglio", "Other", ["A"], ["Y"], body, model.opset_import))
    graph = tmp_path / "model.onnx"
    graph.write_bytes(whole)
    assert changed_graph(graph, tmp_path / "data", [merge_matmuls])[0]
    for wrong in (own.SerializeToString(), other.SerializeToString(), whole + whole):
        graph.write_bytes(wrong)
        with pytest.raises(ValueError, match="a model has one graph, and no operators that it defines itself"):
            changed_graph(graph, tmp_path / "data", [merge_matmuls])


def test_changed_graphs_end_in_a_graph_or_a_value_error() -> None:
    """Give the nodes of a layer other inputs, outputs, kinds and places."""
    whole = model_of(
        [(small(0), "normed"), (small(1), "normed"), (small(2), "hidden")], [skipping()], SWIGLU, outputs=["y2", "sum"]
    )
    random = np.random.default_rng(0)
    names = ["", *{name for node in whole.graph.node for name in (*node.input, *node.output)}]
    outcomes = {"graph": 0, "refused": 0}
    for _ in range(400):
        model = onnx.ModelProto.FromString(whole.SerializeToString())
        nodes = model.graph.node
        for _ in range(int(random.integers(1, 4))):
            node = nodes[int(random.integers(len(nodes)))]
            values = node.input if random.random() < 0.6 else node.output
            match int(random.integers(5)):
                case 0 if len(values):
                    values.pop(int(random.integers(len(values))))
                case 1 if len(values):
                    values[int(random.integers(len(values)))] = names[int(random.integers(len(names)))]
                case 2:
                    values.append(names[int(random.integers(len(names)))])
                case 3:
                    node.op_type = KINDS[int(random.integers(len(KINDS)))]
                case _:
                    nodes.insert(int(random.integers(len(nodes))), node)
        for change in CHANGES:
            try:
                model = changed_model(model, change)
            except ValueError:
                outcomes["refused"] += 1
                break
        else:
            outcomes["graph"] += 1
    assert min(outcomes.values()) > 50, outcomes
