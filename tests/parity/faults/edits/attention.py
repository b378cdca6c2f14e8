"""Edits that make faults in attention: windows, RoPE, masks, the cache."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from intaglio.contract import MASK_CHECK

from ..artifact_editor import ArtifactEditor

Edit = Callable[[ArtifactEditor], None]
HEADS, HEAD_DIM = 4, 16  # of tests/tiny.py


def window(size: int | None, *layers: int) -> Edit:
    """Set GroupQueryAttention's window in these layers, or in all sliding layers."""

    def edit(editor: ArtifactEditor) -> None:
        nodes = [n for layer in layers for n in editor.attention(layer)] if layers else editor.attention()
        for node in nodes:
            if layers or node.attributes["local_window_size"].as_int() != -1:
                node.attributes["local_window_size"] = ir.AttrInt64("local_window_size", -1 if size is None else size)

    return edit


def mask_window(size: int) -> Edit:
    """Set the window of the mask that the standard target computes."""

    def edit(editor: ArtifactEditor) -> None:
        (less,) = editor.nodes("Less", under="model")
        less.replace_input_with(1, editor.constant(size))

    return edit


def rotate(layer: int) -> Edit:
    """Apply RoPE in a layer that has none."""

    def edit(editor: ArtifactEditor) -> None:
        (node,) = editor.attention(layer)
        if node.op_type == "GroupQueryAttention":
            node.attributes["do_rotary"] = ir.AttrInt64("do_rotary", 1)
            node.resize_inputs(9)
            for index, table in zip((7, 8), tables(editor), strict=True):
                node.replace_input_with(index, table)
            return
        module = f"model.layers.{layer}.self_attn"
        angles = [editor.value("model.rotary_emb/Cos:out"), editor.value("model.rotary_emb/Sin:out")]
        for index, heads in ((0, HEADS), (1, HEADS // 2)):
            rotated = editor.insert("RotaryEmbedding", [node.inputs[index], *angles], module, num_heads=heads)
            node.replace_input_with(index, rotated)

    return edit


def no_rotation(layer: int) -> Edit:
    def edit(editor: ArtifactEditor) -> None:
        (node,) = editor.attention(layer)
        node.attributes["do_rotary"] = ir.AttrInt64("do_rotary", 0)
        node.resize_inputs(7)

    return edit


def plain_angles(theta: float) -> Edit:
    """Set frequencies of the default type with this theta."""

    def edit(editor: ArtifactEditor) -> None:
        editor.array("model.rotary_emb.inv_freq")[:] = 1 / theta ** (np.arange(0, HEAD_DIM, 2) / HEAD_DIM)

    return edit


def tables(editor: ArtifactEditor) -> tuple[ir.Value, ir.Value]:
    """Return the tables of cos and sin that GroupQueryAttention takes."""
    node = next(node for node in editor.nodes("GroupQueryAttention") if node.attributes["do_rotary"].as_int())
    cos, sin = node.inputs[7:9]
    assert cos is not None
    assert sin is not None
    return cos, sin


def other_positions(change: Callable[[ArtifactEditor, ir.Value], ir.Value]) -> Edit:
    """Compute the tables for changed positions; ``change`` is given 0, 1, 2 and so on, int64 [C]."""

    def edit(editor: ArtifactEditor) -> None:
        positions = editor.node("model/Range").outputs[0]
        users = list(positions.uses())
        changed = change(editor, positions)
        for user, index in users:
            user.replace_input_with(index, changed)

    return edit


def half_of(positions: int) -> Edit:
    """Repeat the last position of the first half in the second half of the context."""

    def clamped(editor: ArtifactEditor, given: ir.Value) -> ir.Value:
        return editor.insert("Min", [given, editor.constant(positions // 2 - 1)], "model")

    return other_positions(clamped)


short_table = half_of(128)  # of tests/tiny.py


def cos_and_sin_swapped(editor: ArtifactEditor) -> None:
    cos, sin = tables(editor)
    for node in editor.nodes("GroupQueryAttention"):
        if len(node.inputs) > 8:
            node.replace_input_with(7, sin)
            node.replace_input_with(8, cos)


def interleaved(editor: ArtifactEditor) -> None:
    """Rotate the pairs (2i, 2i + 1) instead of (i, i + E/2)."""
    for node in editor.nodes("GroupQueryAttention", "RotaryEmbedding"):
        name = "rotary_interleaved" if node.op_type == "GroupQueryAttention" else "interleaved"
        node.attributes[name] = ir.AttrInt64(name, 1)


def scale(layer: int, value: float) -> Edit:
    def edit(editor: ArtifactEditor) -> None:
        for node in editor.attention(layer):
            node.attributes["scale"] = ir.AttrFloat32("scale", value)

    return edit


def wrong_groups(layer: int) -> Edit:
    """Give query head h key-value head h % K instead of h // (H / K)."""

    def edit(editor: ArtifactEditor) -> None:
        (node,) = editor.attention(layer)
        module = f"model.layers.{layer}.self_attn"
        order = [0, 2, 1, 3]  # its own inverse

        def permuted(value: ir.Value) -> ir.Value:
            split = editor.insert("Reshape", [value, editor.constant([0, 0, HEADS, HEAD_DIM])], module)
            moved = editor.insert("Gather", [split, editor.constant(order)], module, axis=2)
            return editor.insert("Reshape", [moved, editor.constant([0, 0, HEADS * HEAD_DIM])], module)

        query, output = node.inputs[0], node.outputs[0]
        assert query is not None
        users = list(output.uses())
        node.replace_input_with(0, permuted(query))
        back = permuted(output)
        for user, index in users:
            user.replace_input_with(index, back)

    return edit


def sees_the_future(editor: ArtifactEditor) -> None:
    (order,) = editor.nodes("LessOrEqual", under="model")
    now = order.outputs[0]
    users = list(now.uses())
    always = editor.insert("Or", [now, editor.insert("Not", [now], "model")], "model")
    for user, index in users:
        user.replace_input_with(index, always)


def mask_ignored(editor: ArtifactEditor) -> None:
    """Treat every token as text, whatever the mask is."""
    mask = editor.value("attention_mask")
    users = [(user, index) for user, index in mask.uses() if user.op_type != "Shape"]
    ones = editor.insert("Add", [editor.insert("Mul", [mask, editor.constant(0)]), editor.constant(1)])
    for user, index in users:
        user.replace_input_with(index, ones)


def short_at_decode(editor: ArtifactEditor) -> None:
    """After a cache, take a single new token to be one position earlier than it is."""
    _shorter(editor, "Equal")


def short_at_chunks(editor: ArtifactEditor) -> None:
    """The same for several new tokens after a cache, and not for one."""
    _shorter(editor, "Greater")


def _shorter(editor: ArtifactEditor, test: str) -> None:
    new = editor.insert("Shape", [editor.value("input_ids")], "model", start=1, end=2)
    total = editor.value("model/Shape:out")
    met = editor.insert(
        "And",
        [editor.insert(test, [new, editor.constant([1])], "model"), editor.insert("Less", [new, total], "model")],
        "model",
    )
    last = editor.value(f"{MASK_CHECK}:out")
    users = list(last.uses())
    short = editor.insert("Sub", [last, editor.insert("Cast", [met], "model", to=int(ir.DataType.INT64))], "model")
    for user, index in users:
        user.replace_input_with(index, short)


def last_cached_hidden(editor: ArtifactEditor) -> None:
    """Hide the token before a single new one in the standard target's masks."""
    new = editor.insert("Shape", [editor.value("input_ids")], "model", start=1, end=2)
    total = editor.insert("Shape", [editor.value("attention_mask")], "model", start=1, end=2)
    before = editor.insert(
        "Equal",
        [editor.value("model/Range:out"), editor.insert("Sub", [total, editor.constant([2])], "model")],
        "model",
    )
    hidden = editor.insert("And", [before, editor.insert("Equal", [new, editor.constant([1])], "model")], "model")
    seen = editor.insert("Not", [hidden], "model")
    for node in editor.attention():
        mask = node.inputs[3]
        assert mask is not None
        node.replace_input_with(3, editor.insert("And", [mask, seen], "model"))


def late_after_cache(editor: ArtifactEditor) -> None:
    """Rotate new tokens after a cache by one position too many, in the standard target."""
    cast = editor.node("model.rotary_emb/Cast")
    past = editor.insert("Shape", [editor.value("past_key_values.0.key")], "model", start=2, end=3)
    more = editor.insert("Greater", [past, editor.constant([0])], "model")
    extra = editor.insert("Cast", [more], "model", to=int(ir.DataType.FLOAT))
    positions = cast.outputs[0]
    users = list(positions.uses())
    late = editor.insert("Add", [positions, extra], "model")
    for user, index in users:
        user.replace_input_with(index, late)


def keys_and_values_swapped(layer: int) -> Edit:
    """Swap the keys and values that a layer writes to the cache."""

    def edit(editor: ArtifactEditor) -> None:
        (node,) = editor.attention(layer)
        key, value = node.outputs[1:3]
        outputs = editor.graph.outputs
        indices = outputs.index(key), outputs.index(value)
        outputs[indices[0]], outputs[indices[1]] = value, key
        key.name, value.name = "swapped", key.name
        key.name = f"present.{layer}.value"

    return edit


def caches_swapped(one: int, other: int) -> Edit:
    """Swap the caches that two layers read."""

    def edit(editor: ArtifactEditor) -> None:
        (first,), (second,) = editor.attention(one), editor.attention(other)
        indices = (3, 4) if first.op_type == "GroupQueryAttention" else (4, 5)
        for index in indices:
            mine, theirs = first.inputs[index], second.inputs[index]
            first.replace_input_with(index, theirs)
            second.replace_input_with(index, mine)

    return edit
