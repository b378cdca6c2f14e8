"""Merged matrix multiplications agree with separate ones, and only matching graphs are changed."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
from intaglio.runtime import kernels
from intaglio.runtime.kernels.edits.merged_matmuls import merge_matmuls
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..conftest import NAMES, changed_model, run_session
from .test_matmul import LONG, Case, needs_kernels, session

Floats = NDArray[np.float32]
EPSILON = 1e-5
SWIGLU = (
    helper.make_node("Sigmoid", ["y0"], ["sigmoid"]),
    helper.make_node("Mul", ["y0", "sigmoid"], ["silu"]),
    helper.make_node("Mul", ["silu", "y1"], ["hidden"]),
)


def node_of(case: Case, number: int, x: str = "x") -> tuple[onnx.NodeProto, list[onnx.TensorProto]]:
    """Return the node and tensors of a case, with a number added to their names."""
    graph = onnx.load_from_string(case.model()).graph
    (node,) = graph.node
    for index, name in enumerate(node.input):
        node.input[index] = x if name == "x" else f"{name}{number}" if name else ""
    node.output[0], node.name = f"y{number}", f"model.layers.0.part.y{number}/MatMulNBits"
    for tensor in graph.initializer:
        tensor.name += str(number)
    return node, list(graph.initializer)


def model_of(
    products: Sequence[tuple[Case, str]],
    before: Sequence[onnx.NodeProto] = (),
    behind: Sequence[onnx.NodeProto] = (),
    outputs: Sequence[str] = ("y0", "y1", "y2"),
) -> onnx.ModelProto:
    """Return a model with one multiplication per pair of case and input name, and nodes before and after them."""
    cases, k = [case for case, _ in products], products[0][0].k
    made = [node_of(case, number, x) for number, (case, x) in enumerate(products)]
    front = [node for (node, _), (_, x) in zip(made, products, strict=True) if x != "hidden"]
    last = [node for (node, _), (_, x) in zip(made, products, strict=True) if x == "hidden"]
    widths = {f"y{number}": case.scales.shape[0] for number, case in enumerate(cases)} | {"sum": k, "normed": k}
    graph = helper.make_graph(
        [*before, *front, *behind, *last],
        "layer",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["a", "b", k]) for name in ("x", "skip")],
        [
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, ["a", "b", widths.get(name, cases[0].scales.shape[0])]
            )
            for name in outputs
        ],
        [tensor for _, tensors in made for tensor in tensors] + [numpy_helper.from_array(weight(k), "norm")],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def weight(k: int) -> Floats:
    return np.random.default_rng(k).uniform(0.5, 2, k).astype(np.float32)


def skipping(output: str = "normed", total: str = "sum", epsilon: float = EPSILON) -> onnx.NodeProto:
    return helper.make_node(
        "SkipSimplifiedLayerNormalization",
        ["x", "skip", "norm"],
        [output, "", "", total],
        domain="com.microsoft",
        epsilon=epsilon,
    )


NORM = helper.make_node("SimplifiedLayerNormalization", ["x", "norm"], ["normed"], epsilon=EPSILON, axis=-1)


def changed(model: onnx.ModelProto) -> onnx.ModelProto:
    return changed_model(model, merge_matmuls)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def run(model: onnx.ModelProto, x: Floats, skip: Floats | None = None) -> list[Floats]:
    feeds = {"x": x, "skip": np.zeros_like(x) if skip is None else skip}
    return run_session(session(model.SerializeToString()), feeds)


def alone(case: Case, x: Floats) -> Floats:
    return run_session(session(case.model()), {"x": x})[0]


def silu(gate: Floats) -> NDArray[np.float64]:
    wide = gate.astype(np.float64)
    with np.errstate(over="ignore"):
        return np.asarray(wide / (1 + np.exp(-wide)))


def normed(x: Floats) -> Floats:
    wide = x.astype(np.float64)
    rms = np.sqrt((wide**2).mean(axis=-1, keepdims=True) + EPSILON)
    return np.asarray(wide / rms * weight(x.shape[-1]), dtype=np.float32)


def qkv(k: int) -> list[Case]:
    """Return three cases of different formats, one of them in blocks of 16."""
    return [
        Case(70, k, 4, 32, zero_points=True, bias=True),
        Case(16, k, 8, 16, zero_points=False, bias=True),
        Case(5, k, 5, 128, zero_points=True, bias=False),
    ]


def swiglu(hidden: int, k: int, down: Case | None = None) -> list[Case]:
    gate = Case(hidden, k, 4, 32, zero_points=True, bias=False)
    up = Case(hidden, k, 8, 16, zero_points=False, bias=True)
    for case in (gate, up):
        case.scales, case.weights = case.scales / np.float32(8), case.weights / np.float32(8)  # so that silu is no step
    return [gate, up, *([] if down is None else [down])]


def inputs(rows: int, k: int, seed: int = 0) -> tuple[Floats, Floats]:
    random = np.random.default_rng((rows, k, seed))
    x, skip = random.normal(size=(2, 1, rows, k)).astype(np.float32)
    return x, skip


@pytest.mark.usefixtures("with_each")
@pytest.mark.parametrize("rows", [1, 2, 12, 13, 40, 130])
def test_multiplications_of_one_input_equal_separate_ones(rows: int) -> None:
    """Bit for bit, in all formats."""
    for k in (32, 100, 300):
        cases, (x, _) = qkv(k), inputs(rows, k)
        model = changed(model_of([(case, "x") for case in cases]))
        assert kinds(model) == ["MergedMatMulNBits"]
        assert model.graph.node[0].name == "model.layers.0.part/MergedMatMulNBits"
        for case, found in zip(cases, run(model, x), strict=True):
            assert np.array_equal(found, alone(case, x))


@pytest.mark.usefixtures("with_each")
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("skips", [False, True], ids=["norm", "skip and norm"])
def test_the_norm_before_them(skips: bool, count: int) -> None:
    for rows, k in ((1, 32), (3, 100), (12, 300), (40, 300)):
        cases, (x, skip) = qkv(k)[:count], inputs(rows, k)
        names = [f"y{number}" for number in range(count)]
        model = changed(
            model_of(
                [(case, "normed") for case in cases],
                [skipping() if skips else NORM],
                outputs=[*names, "sum"] if skips else names,
            )
        )
        assert kinds(model) == ["MergedMatMulNBits"]
        found, total = run(model, x, skip), x + skip if skips else x
        for case, y in zip(cases, found, strict=False):
            wanted = case.expected(normed(total))
            # A value on the edge between two integers may be rounded the other way: one step of one element.
            assert np.abs(y - wanted).max() <= 4e-3 * np.abs(wanted).max() + 1e-4
        if skips:
            assert np.array_equal(found[-1], total)


@needs_kernels
def test_the_norms_epsilon_is_the_nodes() -> None:
    case, x = Case(16, 64, 4, 32, False, bias=False), np.full((1, 1, 64), 1e-3, dtype=np.float32)
    for epsilon in (1e-6, 1.0):
        model = changed(model_of([(case, "normed")], [skipping(epsilon=epsilon)], outputs=["y0"]))
        wanted = case.expected((x / np.sqrt(1e-6 + epsilon) * weight(64)).astype(np.float32))
        np.testing.assert_allclose(run(model, x)[0], wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("with_each")
@pytest.mark.parametrize("rows", [1, 2, 12, 13, 40, 130])
def test_swiglu_is_silu_of_the_gate_times_up(rows: int) -> None:
    for hidden, k in ((37, 96), (5, 100), (130, 300)):
        cases, (x, _) = swiglu(hidden, k), inputs(rows, k)
        model = changed(model_of([(case, "x") for case in cases], behind=SWIGLU, outputs=["hidden"]))
        assert kinds(model) == ["MergedMatMulNBits"]
        gate, up = (alone(case, x) for case in cases)
        # ONNX Runtime's own sigmoid is off by up to a thousandth where it is small, so that it is no measure.
        np.testing.assert_allclose(run(model, x)[0], up * silu(gate), rtol=3e-6)


@pytest.mark.usefixtures("with_each")
@pytest.mark.parametrize("rows", [1, 2, 12, 13, 40, 130])
@pytest.mark.parametrize(
    ("bits", "block", "zero_points"), [(4, 32, True), (4, 16, False), (8, 16, False), (8, 64, True)]
)
def test_down_follows(rows: int, bits: int, block: int, zero_points: bool) -> None:
    """Check that down gives the same bits as with the SwiGLU output as its input."""
    for hidden, k in ((16, 32), (37, 96), (130, 300), (200, 64)):
        cases, (x, _) = swiglu(hidden, k, Case(k, hidden, bits, block, zero_points, bias=True)), inputs(rows, k)
        pairs = [(case, "x") for case in cases[:2]]
        short = changed(model_of(pairs, behind=SWIGLU, outputs=["hidden"]))
        whole = changed(model_of([*pairs, (cases[2], "hidden")], behind=SWIGLU, outputs=["y2"]))
        assert kinds(whole) == ["MergedMatMulNBits"]
        assert np.array_equal(run(whole, x)[0], alone(cases[2], run(short, x)[0]))


def whole_layer(hidden: int = 130, k: int = 200) -> onnx.ModelProto:
    cases = swiglu(hidden, k, Case(k, hidden, 4, 64, zero_points=True, bias=False))
    pairs = [(cases[0], "normed"), (cases[1], "normed"), (cases[2], "hidden")]
    model = changed(model_of(pairs, [skipping()], SWIGLU, outputs=["y2", "sum"]))
    assert kinds(model) == ["MergedMatMulNBits"]
    return model


@pytest.mark.usefixtures("with_each")
def test_rows_do_not_depend_on_each_other() -> None:
    """Check that a token has the same bits alone, in a batch, in short chunks and in long texts."""
    ours, (x, skip) = session(whole_layer().SerializeToString()), inputs(131, 200)

    def run_rows(here: slice, batch: bool = False) -> list[Floats]:
        feeds = {"x": x[:, here], "skip": skip[:, here]}
        if not batch:
            return run_session(ours, feeds)
        turned = run_session(ours, {name: value.swapaxes(0, 1) for name, value in feeds.items()})
        return [found.swapaxes(0, 1) for found in turned]

    together, long = run_rows(slice(131), batch=True), run_rows(slice(131))
    for here in (*(slice(row, row + 1) for row in range(131)), slice(LONG - 1)):
        for found, wanted in zip(run_rows(here), together, strict=True):
            assert np.array_equal(found, wanted[:, here])
    for rows in (LONG, 70, 97, 110):
        for found, wanted in zip(run_rows(slice(rows)), long, strict=True):
            assert np.array_equal(found, wanted[:, :rows])


@needs_kernels
@pytest.mark.parametrize("rows", [1, 31])
def test_all_instructions_give_the_same_bits(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x, skip) = whole_layer(), inputs(rows, 200)
    found = []
    for name in NAMES:
        monkeypatch.setenv("INTAGLIO_KERNELS", name)
        if kernels.instructions() == name:
            found.append(run(model, 30 * x, skip))
    for one in found[1:]:
        assert all(map(np.array_equal, one, found[0]))


@pytest.mark.usefixtures("with_each")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_stay_in_their_row(bad: float) -> None:
    (x, skip), model = inputs(3, 200), whole_layer()
    x[0, 1, 7] = bad
    found, clean = run(model, x, skip)[0], run(model, np.nan_to_num(x, posinf=0.0), skip)[0]
    assert not np.isfinite(found[0, 1]).any()
    assert np.array_equal(found[0, ::2], clean[0, ::2])


@pytest.mark.usefixtures("with_each")
def test_extreme_gates() -> None:
    """Use zero inputs, so that the gate is its bias and up is 1."""
    gate = np.array([0, -0.0, 1e-30, 88, -88, 1e4, -1e4, 3e38, np.inf, np.nan, -50, 50, 5, -5, 20, -20], np.float32)
    cases = [Case(16, 64, 4, 32, zero_points=False, bias=True) for _ in range(2)]
    cases[0].bias, cases[1].bias = gate, np.ones(16, dtype=np.float32)
    model = changed(model_of([(case, "x") for case in cases], behind=SWIGLU, outputs=["hidden"]))
    found, wanted = run(model, np.zeros((1, 1, 64), dtype=np.float32))[0][0, 0], silu(gate)
    assert np.isnan(found[9])
    assert np.delete(found, 9) == pytest.approx(np.delete(wanted, 9), rel=3e-5, abs=1e-30)


@needs_kernels
def test_no_rows() -> None:
    none = np.zeros((1, 0, 200), dtype=np.float32)
    assert [found.shape for found in run(whole_layer(), none, none)] == [(1, 0, 200), (1, 0, 200)]


@needs_kernels
def test_a_skip_of_another_shape_is_refused() -> None:
    with pytest.raises(
        Exception, match=r"input skip has the shape \[1, 1, 200\]; it must be the shape of x = \[1, 2, 200\]"
    ):
        run(whole_layer(), np.ones((1, 2, 200), np.float32), np.ones((1, 1, 200), np.float32))


@needs_kernels
def test_matrices_that_do_not_fit_each_other_are_refused() -> None:
    model = whole_layer()
    for attribute in model.graph.node[0].attribute:
        if attribute.name == "swiglu":
            attribute.i = 0  # then down's input is x, which has another length
    with pytest.raises(Exception, match="intaglio: MergedMatMulNBits: attribute K2 is 130; it must be that of K0, 200"):
        session(model.SerializeToString())


@needs_kernels
def test_unsupported_accuracy_levels_are_refused() -> None:
    model = whole_layer()
    for attribute in model.graph.node[0].attribute:
        if attribute.name == "accuracy_level1":
            attribute.i = 0
    with pytest.raises(Exception, match="intaglio: MergedMatMulNBits: attribute accuracy_level1 is 0; it must be 4"):
        session(model.SerializeToString())


def small(number: int) -> Case:
    return Case(64, 64, 4, 32, zero_points=bool(number % 2), bias=False)


PAIR = [(small(0), "x"), (small(1), "x")]


def test_operands_in_any_order() -> None:
    """Also where up comes first."""
    behind = (
        helper.make_node("Sigmoid", ["y1"], ["sigmoid"]),
        helper.make_node("Mul", ["sigmoid", "y1"], ["silu"]),
        helper.make_node("Mul", ["y0", "silu"], ["hidden"]),
    )
    (node,) = changed(model_of(PAIR, behind=behind, outputs=["hidden"])).graph.node
    assert node.op_type == "MergedMatMulNBits"
    assert list(node.input) == ["x", "", "", "B1", "scales1", "zeros1", "", "", "B0", "scales0", "", "", ""]
    assert list(node.output) == ["hidden", "", "", ""]


def test_nodes_stay_behind_what_they_read() -> None:
    """Compute the second multiplication's scales after the first one, and read the sum before it."""
    model = model_of(PAIR, [skipping()], outputs=["y0", "y1", "negative"])
    for node in model.graph.node[1:]:
        node.input[0] = "normed"
    model.graph.node.insert(1, helper.make_node("Neg", ["sum"], ["negative"]))
    model.graph.node.insert(3, helper.make_node("Identity", ["scales1"], ["late"]))
    model.graph.node[4].input[2] = "late"
    assert kinds(changed(model)) == ["Identity", "MergedMatMulNBits", "Neg"]


OTHERS: dict[str, Callable[[], onnx.ModelProto]] = {
    "one product": lambda: model_of(PAIR[:1], outputs=["y0"]),
    "products of different inputs": lambda: model_of([(small(0), "x"), (small(1), "skip")], outputs=["y0", "y1"]),
    "more products than three": lambda: model_of([(small(n), "x") for n in range(4)], outputs=["y0", "y3"]),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS.keys())
def test_what_has_nothing_in_common_stays(make: Callable[[], onnx.ModelProto]) -> None:
    model = make()
    assert changed(model) == model


SILU_OF_ANOTHER = (helper.make_node("Neg", ["y0"], ["n"]), helper.make_node("Sigmoid", ["n"], ["sigmoid"]), *SWIGLU[1:])
NO_SILU = (SWIGLU[0], helper.make_node("Mul", ["sigmoid", "y1"], ["hidden"]))
NO_SWIGLU: dict[str, tuple[Sequence[onnx.NodeProto], Sequence[str]]] = {
    "up is read elsewhere": (SWIGLU, ["hidden", "y1"]),
    "the gate is": (SWIGLU, ["hidden", "y0"]),
    "the sigmoid is": (SWIGLU, ["hidden", "sigmoid"]),
    "another's sigmoid": (SILU_OF_ANOTHER, ["hidden"]),
    "no silu": (NO_SILU, ["hidden"]),
}


@pytest.mark.parametrize(("behind", "outputs"), NO_SWIGLU.values(), ids=NO_SWIGLU.keys())
def test_nodes_that_are_not_swiglu_stay(behind: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> None:
    """Check that the multiplications become one node with both outputs, and the other nodes stay."""
    model = changed(model_of(PAIR, behind=behind, outputs=outputs))
    assert Counter(kinds(model)) == Counter(["MergedMatMulNBits", *(node.op_type for node in behind)])
    (layer,) = (node for node in model.graph.node if node.op_type == "MergedMatMulNBits")
    assert list(layer.output) == ["y0", "y1", "", ""]


def test_a_hidden_state_that_is_read_elsewhere_stays() -> None:
    pairs = [*PAIR, (small(2), "hidden")]
    model = changed(model_of(pairs, behind=SWIGLU, outputs=["hidden", "y2"]))
    assert kinds(model) == ["MergedMatMulNBits", "MatMulNBits"]


@pytest.mark.parametrize("outputs", [["y0", "y1", "normed"], ["y0", "y1", "mean"]])
def test_a_norm_that_is_read_elsewhere_stays(outputs: list[str]) -> None:
    norm = skipping()
    norm.output[1] = "mean"
    model = changed(model_of([(case, "normed") for case, _ in PAIR], [norm], outputs=outputs))
    assert kinds(model) == ["SkipSimplifiedLayerNormalization", "MergedMatMulNBits"]
