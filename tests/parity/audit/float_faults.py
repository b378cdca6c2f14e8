"""Faults of float weights."""

from collections.abc import Callable

import numpy as np

from ..artifacts import Base
from ..faults.artifact_editor import Array, ArtifactEditor
from ..faults.edits import weights as edits
from ..faults.edits.attention import Edit
from ..faults.edits.layers import bias_dropped
from .faulty_weight import LAYER, FaultyWeight, scaled

FLOAT = Base("qwen2")
STANDARD = Base("qwen2", target="standard")
HALF = Base("exaone4", precision="fp16")
TIED = Base("qwen2", changes={"tie_word_embeddings": True})
OUT, GATE, UP, DOWN = (f"{LAYER}{name}_proj.weight" for name in ("self_attn.o", "mlp.gate", "mlp.up", "mlp.down"))


def rows(name: str, change: Callable[[Array], Array]) -> Edit:
    """A change to a float projection as the checkpoint has it, [N, K]."""
    return edits.rewritten(name, lambda weight: change(weight.T.copy()).T)


def swapped(weight: Array, first: slice, second: slice) -> Array:
    weight[first], weight[second] = weight[second].copy(), weight[first].copy()
    return weight


def zeroed_rows(weight: Array) -> Array:
    weight[20:] = 0
    return weight


def own_layout(name: str) -> Edit:
    """[N, K] written where [K, N] is read."""
    return edits.rewritten(name, lambda weight: weight.T.reshape(weight.shape))


def given(name: str, other: str) -> Edit:
    """The node that multiplies by one weight takes another one of the same shape."""

    def edit(editor: ArtifactEditor) -> None:
        value = editor.graph.initializers[name]
        node = next(iter(value.uses())).node
        node.replace_input_with(1, editor.graph.initializers[other])

    return edit


FLOAT_FAULTS = [
    FaultyWeight("zeroed", FLOAT, edits.zeroed(GATE), GATE, r"all zeros.*root mean square of 0\.\d"),
    FaultyWeight(
        "transposed", FLOAT, edits.transposed(OUT), OUT, r"all of its rows are those of \S+o_proj.weight transposed"
    ),
    FaultyWeight("own layout", FLOAT, own_layout(DOWN), DOWN, "in its own layout, read as if transposed"),
    FaultyWeight("negated", FLOAT, scaled(UP, -1), UP, "all of its rows have the opposite sign"),
    FaultyWeight("scaled", FLOAT, scaled(UP, 0.5), UP, r"are 0\.5 times the source's"),
    FaultyWeight(
        "another layer's", FLOAT, edits.copied(GATE.replace("1", "2"), GATE), GATE, r"those of model.layers.2.mlp.gate"
    ),
    FaultyWeight("gate for up", FLOAT, edits.copied(GATE, UP), UP, r"those of model.layers.1.mlp.gate"),
    FaultyWeight(
        "norm",
        FLOAT,
        edits.copied(f"{LAYER}input_layernorm.weight", "model.norm.weight"),
        "model.norm.weight",
        "its numbers are those of model.layers.1.input_layernorm.weight",
    ),
    FaultyWeight(
        "bias", STANDARD, edits.zeroed(f"{LAYER}self_attn.k_proj.bias"), f"{LAYER}self_attn.k_proj.bias", "all zeros"
    ),
    FaultyWeight(
        "no bias",
        STANDARD,
        bias_dropped(f"{LAYER}self_attn.q_proj"),
        f"{LAYER}self_attn.q_proj.bias",
        r"the bias is missing: no initializer of the graph was made from model.layers.1.self_attn.q_proj.bias",
    ),
    FaultyWeight(
        "one number",
        FLOAT,
        rows(DOWN, lambda w: w + 0.01 * (np.arange(w.size) == 700).reshape(w.shape)),
        DOWN,
        r"1 of its numbers are not the source's",
    ),
    FaultyWeight("rounded", FLOAT, edits.half_precision(UP), UP, "rounded to fp16"),
    FaultyWeight(
        "infinite",
        HALF,
        edits.overflowed("model.norm.weight"),
        "model.norm.weight",
        "1 of its 64 numbers.*column 3, are NaN or infinite",
    ),
    FaultyWeight(
        "heads",
        HALF,
        rows(f"{LAYER}self_attn.q_proj.weight", lambda w: swapped(w, slice(16), slice(16, 32))),
        f"{LAYER}self_attn.q_proj.weight",
        r"32 of its 64 rows.*row 0 of \S+ holds row 16 of.*head 1 where head 0 belongs",
    ),
    FaultyWeight(
        "columns",
        FLOAT,
        edits.rewritten(OUT, lambda w: swapped(w, slice(16), slice(16, 32))),
        OUT,
        "columns in a different order: column 0 holds column 16",
    ),
    FaultyWeight(
        "k for v",
        FLOAT,
        rows(f"{LAYER}self_attn.qkv_proj.weight", lambda w: swapped(w, slice(64, 96), slice(96, 128))),
        f"{LAYER}self_attn.qkv_proj.weight",
        r"those of \S+v_proj.weight, \S+k_proj.weight",
    ),
    FaultyWeight(
        "part", FLOAT, rows(DOWN, zeroed_rows), DOWN, r"44 of its 64 rows, row 20 of \S+ to row 63, are zeros"
    ),
    FaultyWeight(
        "untied, tied",
        FLOAT,
        edits.copied("model.embed_tokens.weight", "lm_head.weight"),
        "lm_head.weight",
        "the head is the embedding, and config.json has tie_word_embeddings = false",
    ),
    FaultyWeight(
        "half of a vocabulary",
        TIED,
        edits.rows_shifted("model.embed_tokens.weight", 144),
        "model.embed_tokens.weight",
        "144 of its 288 rows.*are other rows of the source",
    ),
    FaultyWeight(
        "wired to another",
        FLOAT,
        given(GATE, UP),
        UP,
        r"it is the weight of model.layers.1.mlp.up_proj, and model.layers.1.mlp.gate_proj uses it",
        (GATE,),
    ),
    FaultyWeight(
        "one more",
        FLOAT,
        edits.rewritten("model.norm.weight", lambda weight: weight + 1),
        "model.norm.weight",
        "are the source's plus 1",
    ),
]
