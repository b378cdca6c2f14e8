"""Edits that make faults in norms, residuals, the MLP, biases and tied embeddings."""

import onnx_ir as ir
from intaglio.contract import MODULE_KEY

from ..artifact_editor import ArtifactEditor
from .attention import Edit

NORMS = ("SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "RMSNormalization")


def bypassed(name: str, index: int) -> Edit:
    """Replace the output of a node by one of its inputs."""

    def edit(editor: ArtifactEditor) -> None:
        node = editor.node(name)
        value = node.inputs[index]
        assert value is not None
        editor.reroute(node.outputs[0], value)
        editor.sweep()

    return edit


def epsilon(value: float, under: str = "") -> Edit:
    def edit(editor: ArtifactEditor) -> None:
        for node in editor.nodes(*NORMS, under=under):
            node.attributes["epsilon"] = ir.AttrFloat32("epsilon", value)

    return edit


def norm_skipped(module: str) -> Edit:
    """Replace a norm's output by its input."""

    def edit(editor: ArtifactEditor) -> None:
        (norm,) = editor.nodes(*NORMS, under=module)
        first, last = norm, norm
        while (before := _producer(first.inputs[0])) is not None and _within(before, module):
            first = before
        while len(users := [u for u, _ in last.outputs[0].uses() if _within(u, module)]) == 1:
            last = users[0]
        given = first.inputs[0]
        if norm.op_type == "SkipSimplifiedLayerNormalization":
            given = editor.insert("Add", [given, norm.inputs[1]], module)
        assert given is not None
        if last.outputs[0].is_graph_output():
            name = last.outputs[0].name
            last.outputs[0].name = "skipped"
            editor.graph.outputs[editor.graph.outputs.index(last.outputs[0])] = given
            given.name = name
        editor.reroute(last.outputs[0], given)
        editor.sweep()

    return edit


def _producer(value: ir.Value | None) -> ir.Node | None:
    return value.producer() if value is not None else None


def _within(node: ir.Node, module: str) -> bool:
    return node.metadata_props.get(MODULE_KEY) == module


def norm_before(layer: int) -> Edit:
    """Give EXAONE 4.0 Qwen2's norms: branch(norm(x)) instead of norm(branch(x))."""

    def edit(editor: ArtifactEditor) -> None:
        path = f"model.layers.{layer}"
        for name, add, users in (
            ("post_attention_layernorm", "Add", ("q_proj", "k_proj", "v_proj")),
            ("post_feedforward_layernorm", "Add_2", ("gate_proj", "up_proj")),
        ):
            (norm,) = editor.nodes(*NORMS, under=f"{path}.{name}")
            total = editor.node(f"{path}/{add}")
            x, branch = total.inputs[0], norm.inputs[0]
            norm.replace_input_with(0, x)
            total.replace_input_with(1, branch)
            for user in users:
                part = "self_attn" if user in ("q_proj", "k_proj", "v_proj") else "mlp"
                editor.node(f"{path}.{part}.{user}/MatMul").replace_input_with(0, norm.outputs[0])

    return edit


def residual_left_out(layer: int) -> Edit:
    """Leave out the residual around EXAONE 4.0's attention."""
    return bypassed(f"model.layers.{layer}/Add", 1)


def residual_after_norm(layer: int) -> Edit:
    """Take Qwen2's residual after the norm instead of before it."""

    def edit(editor: ArtifactEditor) -> None:
        (norm,) = editor.nodes(*NORMS, under=f"model.layers.{layer}.post_attention_layernorm")
        editor.reroute(norm.outputs[3], norm.outputs[0])
        norm.outputs[3].name = ""

    return edit


def gate_and_up_swapped(layer: int) -> Edit:
    def edit(editor: ArtifactEditor) -> None:
        path = f"model.layers.{layer}.mlp"
        gate, up = (editor.value(f"{path}.{name}_proj/MatMul:out") for name in ("gate", "up"))
        for node in (editor.node(f"{path}/Sigmoid"), editor.node(f"{path}/Mul")):
            node.replace_input_with(node.inputs.index(gate), up)
        product = editor.node(f"{path}/Mul_2")
        product.replace_input_with(product.inputs.index(up), gate)

    return edit


def gelu(layer: int) -> Edit:
    """Replace SiLU by GELU."""

    def edit(editor: ArtifactEditor) -> None:
        path = f"model.layers.{layer}.mlp"
        activated = editor.insert("com.microsoft::Gelu", [editor.value(f"{path}.gate_proj/MatMul:out")], path)
        editor.reroute(editor.node(f"{path}/Mul").outputs[0], activated)
        editor.sweep()

    return edit


def bias_dropped(module: str) -> Edit:
    """Remove the Add of a projection's bias."""
    return bypassed(f"{module}/Add", 0)


def tied(editor: ArtifactEditor) -> None:
    """Give the LM head the embedding's weight, though the checkpoint does not tie them."""
    head = next(user for user, _ in editor.value("lm_head.weight").uses())
    head.replace_input_with(1, editor.value("model.embed_tokens.weight"))
