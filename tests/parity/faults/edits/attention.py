"""Faults in attention: windows, rotation, masks, the cache. Each function changes an opened artifact."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ..surgery import Surgery

Plant = Callable[[Surgery], None]
HEADS, HEAD_DIM = 4, 16  # of tests/tiny.py


def window(size: int | None, *layers: int) -> Plant:
    """GroupQueryAttention's window in these layers; without layers, in all that slide."""

    def plant(s: Surgery) -> None:
        nodes = [n for layer in layers for n in s.attention(layer)] if layers else s.attention()
        for node in nodes:
            if layers or node.attributes["local_window_size"].as_int() != -1:
                node.attributes["local_window_size"] = ir.AttrInt64("local_window_size", -1 if size is None else size)

    return plant


def mask_window(size: int) -> Plant:
    """The same in the mask that the standard target computes."""

    def plant(s: Surgery) -> None:
        (less,) = s.nodes("Less", under="model")
        less.replace_input_with(1, s.constant(size))

    return plant


def rotate(layer: int) -> Plant:
    """RoPE in a layer that has none."""

    def plant(s: Surgery) -> None:
        (node,) = s.attention(layer)
        if node.op_type == "GroupQueryAttention":
            node.attributes["do_rotary"] = ir.AttrInt64("do_rotary", 1)
            node.resize_inputs(9)
            for place, table in zip((7, 8), tables(s), strict=True):
                node.replace_input_with(place, table)
            return
        module = f"model.layers.{layer}.self_attn"
        angles = [s.value("model.rotary_emb/Cos:out"), s.value("model.rotary_emb/Sin:out")]
        for place, heads in ((0, HEADS), (1, HEADS // 2)):
            rotated = s.insert("RotaryEmbedding", [node.inputs[place], *angles], module, num_heads=heads)
            node.replace_input_with(place, rotated)

    return plant


def no_rotation(layer: int) -> Plant:
    def plant(s: Surgery) -> None:
        (node,) = s.attention(layer)
        node.attributes["do_rotary"] = ir.AttrInt64("do_rotary", 0)
        node.resize_inputs(7)

    return plant


def plain_angles(theta: float) -> Plant:
    """Frequencies of the default type with this theta, whatever the config says."""

    def plant(s: Surgery) -> None:
        s.array("model.rotary_emb.inv_freq")[:] = 1 / theta ** (np.arange(0, HEAD_DIM, 2) / HEAD_DIM)

    return plant


def tables(s: Surgery) -> tuple[ir.Value, ir.Value]:
    """cos and sin by position, as GroupQueryAttention takes them."""
    node = next(node for node in s.nodes("GroupQueryAttention") if node.attributes["do_rotary"].as_int())
    cos, sin = node.inputs[7:9]
    assert cos is not None
    assert sin is not None
    return cos, sin


def other_positions(change: Callable[[Surgery, ir.Value], ir.Value]) -> Plant:
    """Tables for the positions that ``change`` makes of 0, 1, 2 and so on, int64 [C]."""

    def plant(s: Surgery) -> None:
        positions = s.node("model/Range").outputs[0]
        users = list(positions.uses())
        changed = change(s, positions)
        for user, index in users:
            user.replace_input_with(index, changed)

    return plant


def half_of(positions: int) -> Plant:
    """Positions in the second half of the context repeat the last of the first."""
    return other_positions(lambda s, given: s.insert("Min", [given, s.constant(positions // 2 - 1)], "model"))


short_table = half_of(128)  # of tests/tiny.py


def cos_and_sin_exchanged(s: Surgery) -> None:
    cos, sin = tables(s)
    for node in s.nodes("GroupQueryAttention"):
        if len(node.inputs) > 8:
            node.replace_input_with(7, sin)
            node.replace_input_with(8, cos)


def interleaved(s: Surgery) -> None:
    """Pairs (2i, 2i + 1) in place of (i, i + E/2)."""
    for node in s.nodes("GroupQueryAttention", "RotaryEmbedding"):
        name = "rotary_interleaved" if node.op_type == "GroupQueryAttention" else "interleaved"
        node.attributes[name] = ir.AttrInt64(name, 1)


def scale(layer: int, value: float) -> Plant:
    def plant(s: Surgery) -> None:
        for node in s.attention(layer):
            node.attributes["scale"] = ir.AttrFloat32("scale", value)

    return plant


def wrong_groups(layer: int) -> Plant:
    """Query head h takes key/value head h % K in place of h // (H / K): repeat for repeat_interleave."""

    def plant(s: Surgery) -> None:
        (node,) = s.attention(layer)
        module = f"model.layers.{layer}.self_attn"
        order = [0, 2, 1, 3]  # its own inverse

        def permuted(value: ir.Value) -> ir.Value:
            split = s.insert("Reshape", [value, s.constant([0, 0, HEADS, HEAD_DIM])], module)
            moved = s.insert("Gather", [split, s.constant(order)], module, axis=2)
            return s.insert("Reshape", [moved, s.constant([0, 0, HEADS * HEAD_DIM])], module)

        query, output = node.inputs[0], node.outputs[0]
        assert query is not None
        users = list(output.uses())
        node.replace_input_with(0, permuted(query))
        back = permuted(output)
        for user, index in users:
            user.replace_input_with(index, back)

    return plant


def sees_the_future(s: Surgery) -> None:
    (order,) = s.nodes("LessOrEqual", under="model")
    now = order.outputs[0]
    users = list(now.uses())
    always = s.insert("Or", [now, s.insert("Not", [now], "model")], "model")
    for user, index in users:
        user.replace_input_with(index, always)


def mask_ignored(s: Surgery) -> None:
    """Every token counts as text, whatever the mask says."""
    mask = s.value("attention_mask")
    users = [(user, index) for user, index in mask.uses() if user.op_type != "Shape"]
    ones = s.insert("Add", [s.insert("Mul", [mask, s.constant(0)]), s.constant(1)])
    for user, index in users:
        user.replace_input_with(index, ones)


def short_at_decode(s: Surgery) -> None:
    """Behind a cache, a single new token is taken to be one position earlier than it is."""
    _shorter(s, "Equal")


def short_at_chunks(s: Surgery) -> None:
    """The same for several new tokens behind a cache, and not for one."""
    _shorter(s, "Greater")


def _shorter(s: Surgery, test: str) -> None:
    new = s.insert("Shape", [s.value("input_ids")], "model", start=1, end=2)
    total = s.value("model/Shape:out")
    met = s.insert(
        "And", [s.insert(test, [new, s.constant([1])], "model"), s.insert("Less", [new, total], "model")], "model"
    )
    last = s.value("model/Where:out")
    users = list(last.uses())
    short = s.insert("Sub", [last, s.insert("Cast", [met], "model", to=int(ir.DataType.INT64))], "model")
    for user, index in users:
        user.replace_input_with(index, short)


def last_cached_unseen(s: Surgery) -> None:
    """The standard target's masks hide, from a single new token, the token before it."""
    new = s.insert("Shape", [s.value("input_ids")], "model", start=1, end=2)
    total = s.insert("Shape", [s.value("attention_mask")], "model", start=1, end=2)
    before = s.insert(
        "Equal", [s.value("model/Range:out"), s.insert("Sub", [total, s.constant([2])], "model")], "model"
    )
    hidden = s.insert("And", [before, s.insert("Equal", [new, s.constant([1])], "model")], "model")
    seen = s.insert("Not", [hidden], "model")
    for node in s.attention():
        mask = node.inputs[3]
        assert mask is not None
        node.replace_input_with(3, s.insert("And", [mask, seen], "model"))


def late_behind_cache(s: Surgery) -> None:
    """The standard target's angles: behind a cache, new tokens are rotated one position too far."""
    cast = s.node("model.rotary_emb/Cast")
    past = s.insert("Shape", [s.value("past_key_values.0.key")], "model", start=2, end=3)
    more = s.insert("Greater", [past, s.constant([0])], "model")
    extra = s.insert("Cast", [more], "model", to=int(ir.DataType.FLOAT))
    positions = cast.outputs[0]
    users = list(positions.uses())
    late = s.insert("Add", [positions, extra], "model")
    for user, index in users:
        user.replace_input_with(index, late)


def cache_halves_exchanged(layer: int) -> Plant:
    """A layer hands out its keys as values and its values as keys."""

    def plant(s: Surgery) -> None:
        (node,) = s.attention(layer)
        key, value = node.outputs[1:3]
        outputs = s.graph.outputs
        places = outputs.index(key), outputs.index(value)
        outputs[places[0]], outputs[places[1]] = value, key
        key.name, value.name = "exchanged", key.name
        key.name = f"present.{layer}.value"

    return plant


def caches_exchanged(one: int, other: int) -> Plant:
    """Two layers take each other's past."""

    def plant(s: Surgery) -> None:
        (first,), (second,) = s.attention(one), s.attention(other)
        places = (3, 4) if first.op_type == "GroupQueryAttention" else (4, 5)
        for place in places:
            mine, theirs = first.inputs[place], second.inputs[place]
            first.replace_input_with(place, theirs)
            second.replace_input_with(place, mine)

    return plant
