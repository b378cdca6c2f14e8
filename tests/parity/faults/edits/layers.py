"""Faults in norms, residuals, the MLP, biases and tying. Each function changes an opened artifact."""

import onnx_ir as ir

from ..surgery import Surgery
from .attention import Plant

NORMS = ("SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "RMSNormalization")


def epsilon(value: float, under: str = "") -> Plant:
    def plant(s: Surgery) -> None:
        for node in s.nodes(*NORMS, under=under):
            node.attributes["epsilon"] = ir.AttrFloat32("epsilon", value)

    return plant


def norm_skipped(module: str) -> Plant:
    """What went into the norm goes on as it is."""

    def plant(s: Surgery) -> None:
        (norm,) = s.nodes(*NORMS, under=module)
        first, last = norm, norm
        while (before := first.inputs[0].producer()) is not None and _within(before, module):
            first = before
        while len(users := [u for u, _ in last.outputs[0].uses() if _within(u, module)]) == 1:
            last = users[0]
        given = first.inputs[0]
        if norm.op_type == "SkipSimplifiedLayerNormalization":
            given = s.insert("Add", [given, norm.inputs[1]], module)
        assert given is not None
        if last.outputs[0].is_graph_output():
            name = last.outputs[0].name
            last.outputs[0].name = "skipped"
            s.graph.outputs[s.graph.outputs.index(last.outputs[0])] = given
            given.name = name
        s.reroute(last.outputs[0], given)
        s.sweep()

    return plant


def _within(node: ir.Node, module: str) -> bool:
    return node.metadata_props.get("intaglio.module") == module


def norm_before(layer: int) -> Plant:
    """EXAONE 4.0 with Qwen2's norms: branch(norm(x)) in place of norm(branch(x))."""

    def plant(s: Surgery) -> None:
        path = f"model.layers.{layer}"
        for name, add, users in (
            ("post_attention_layernorm", "Add", ("q_proj", "k_proj", "v_proj")),
            ("post_feedforward_layernorm", "Add_2", ("gate_proj", "up_proj")),
        ):
            (norm,) = s.nodes(*NORMS, under=f"{path}.{name}")
            total = s.node(f"{path}/{add}")
            x, branch = total.inputs[0], norm.inputs[0]
            norm.replace_input_with(0, x)
            total.replace_input_with(1, branch)
            for user in users:
                part = "self_attn" if user in ("q_proj", "k_proj", "v_proj") else "mlp"
                s.node(f"{path}.{part}.{user}/MatMul").replace_input_with(0, norm.outputs[0])

    return plant


def residual_left_out(layer: int) -> Plant:
    """EXAONE 4.0's attention without what goes around it."""

    def plant(s: Surgery) -> None:
        total = s.node(f"model.layers.{layer}/Add")
        branch = total.inputs[1]
        assert branch is not None
        s.reroute(total.outputs[0], branch)
        s.sweep()

    return plant


def residual_behind_norm(layer: int) -> Plant:
    """Qwen2's residual taken from behind the norm in place of before it."""

    def plant(s: Surgery) -> None:
        (norm,) = s.nodes(*NORMS, under=f"model.layers.{layer}.post_attention_layernorm")
        s.reroute(norm.outputs[3], norm.outputs[0])
        norm.outputs[3].name = ""

    return plant


def gate_and_up_exchanged(layer: int) -> Plant:
    def plant(s: Surgery) -> None:
        path = f"model.layers.{layer}.mlp"
        gate, up = (s.value(f"{path}.{name}_proj/MatMul:out") for name in ("gate", "up"))
        for node in (s.node(f"{path}/Sigmoid"), s.node(f"{path}/Mul")):
            node.replace_input_with(node.inputs.index(gate), up)
        product = s.node(f"{path}/Mul_2")
        product.replace_input_with(product.inputs.index(up), gate)

    return plant


def gelu(layer: int) -> Plant:
    """GELU in place of SiLU."""

    def plant(s: Surgery) -> None:
        path = f"model.layers.{layer}.mlp"
        activated = s.insert("com.microsoft::Gelu", [s.value(f"{path}.gate_proj/MatMul:out")], path)
        s.reroute(s.node(f"{path}/Mul").outputs[0], activated)
        s.sweep()

    return plant


def bias_dropped(module: str) -> Plant:
    """The Add of a projection's bias is not there."""

    def plant(s: Surgery) -> None:
        add = s.node(f"{module}/Add")
        product = add.inputs[0]
        assert product is not None
        s.reroute(add.outputs[0], product)
        s.sweep()

    return plant


def tied(s: Surgery) -> None:
    """The LM head takes the embedding, which the checkpoint does not tie it to."""
    head = next(user for user, _ in s.value("lm_head.weight").uses())
    head.replace_input_with(1, s.value("model.embed_tokens.weight"))
