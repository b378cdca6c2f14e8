"""The audit reports each faulty weight with the cause, and no other weight."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from intaglio.artifact import read_manifest
from intaglio.models.checkpoint import Checkpoint
from intaglio.parity.audit import audit
from intaglio.parity.report.result import TensorError

from ..artifacts import Base, Shelf
from ..faults.artifact_editor import Array, ArtifactEditor
from ..faults.edits import weights as edits
from ..faults.edits.attention import cos_and_sin_swapped, other_positions, short_table, tables

Edit = Callable[[ArtifactEditor], None]

RTN = {"method": "rtn", "block_size": 16}
FLOAT = Base("qwen2")
STANDARD = Base("qwen2", target="standard")
HALF = Base("exaone4", precision="fp16")
TIED = Base("qwen2", changes={"tie_word_embeddings": True})
INT4 = Base("qwen2", precision="int4", options=RTN)
INT8 = Base("exaone4", precision="int8", options=RTN)
INT4_STANDARD = Base("qwen2", precision="int4", target="standard", options=RTN)
GPTQ = Base("exaone4", precision="int4", options={"method": "gptq", "windows": 2, "block_size": 32})
AWQ = Base("qwen2", precision="int4", options={"method": "awq", "windows": 2, "block_size": 16})
TABLES = Base("exaone4", rope={"rope_type": "linear", "factor": 2.5}, changes={"tie_word_embeddings": True})

LAYER = "model.layers.1."


def audited(artifact: Path, checkpoint: Path) -> tuple[TensorError, ...]:
    return audit(artifact, read_manifest(artifact), Checkpoint(checkpoint))


def scaled(name: str, factor: float) -> Edit:
    return edits.rewritten(name, lambda weight: weight * factor)


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


def one_code(name: str, row: int) -> Edit:
    def edit(editor: ArtifactEditor) -> None:
        codes = editor.array(name)
        codes[row, 0, 0] ^= 4

    return edit


def block_size(op: str, under: str, size: int) -> Edit:
    def edit(editor: ArtifactEditor) -> None:
        editor.nodes(op, under=under)[0].attributes["block_size"] = ir.AttrInt64("block_size", size)

    return edit


def given(name: str, other: str) -> Edit:
    """The node that multiplies by one weight takes another one of the same shape."""

    def edit(editor: ArtifactEditor) -> None:
        value = editor.graph.initializers[name]
        node = next(iter(value.uses())).node
        node.replace_input_with(1, editor.graph.initializers[other])

    return edit


def other_layer(name: str) -> Edit:
    """The codes and scales of layer 1 are those of layer 2."""

    def edit(editor: ArtifactEditor) -> None:
        for leaf in ("codes", "scales"):
            edits.copied(f"model.layers.2.{name}.{leaf}", f"{LAYER}{name}.{leaf}")(editor)

    return edit


def without_bias(editor: ArtifactEditor) -> None:
    add = editor.nodes("Add", under=f"{LAYER}self_attn.q_proj")[0]
    value = add.inputs[0]
    assert value is not None
    editor.reroute(add.outputs[0], value)
    editor.sweep()


position_late = other_positions(lambda editor, given: editor.insert("Add", [given, editor.constant(1)], "model"))


def halved(editor: ArtifactEditor) -> None:
    """Halve the table of sines, and not that of cosines."""
    _, sin = tables(editor)
    users = list(sin.uses())
    small = editor.insert("Mul", [sin, editor.constant(0.5, np.float32)], "model")
    for user, index in users:
        user.replace_input_with(index, small)


def theta(value: float) -> Edit:
    def edit(editor: ArtifactEditor) -> None:
        frequencies = editor.array("model.rotary_emb.inv_freq")
        frequencies[:] = value ** (-np.arange(len(frequencies)) / len(frequencies))

    return edit


@dataclass(frozen=True)
class FaultyWeight:
    """An edit after which ``tensor`` has a fault that matches ``words``, and no others than ``others`` have one."""

    name: str
    base: Base
    edit: Edit
    tensor: str
    words: str
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


OUT, GATE, UP, DOWN = (f"{LAYER}{name}_proj.weight" for name in ("self_attn.o", "mlp.gate", "mlp.up", "mlp.down"))
FAULTY = [
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
        without_bias,
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
        "sign of a scale, int4",
        INT4,
        edits.sign_flipped(f"{LAYER}mlp.up_proj", 5, 1),
        f"{LAYER}mlp.up_proj.codes",
        r"sign of the scale is flipped in 1 of its 384 blocks, the first in row 5 of \S+, columns 16 to 31",
    ),
    FaultyWeight(
        "sign of a scale, int8",
        INT8,
        edits.sign_flipped(f"{LAYER}self_attn.v_proj", 9, 0),
        f"{LAYER}self_attn.v_proj.codes",
        r"sign of the scale.*1 of its.*row 9 of \S+, columns 0 to 15",
    ),
    FaultyWeight(
        "sign of a scale, standard",
        INT4_STANDARD,
        edits.sign_flipped(f"{LAYER}mlp.up_proj", 7, 1, columns=True),
        f"{LAYER}mlp.up_proj.codes",
        r"sign of the scale.*row 7 of \S+, columns 16 to 31",
    ),
    FaultyWeight(
        "sign of a scale, gptq",
        GPTQ,
        edits.sign_flipped(f"{LAYER}mlp.up_proj", 5, 1),
        f"{LAYER}mlp.up_proj.codes",
        r"sign of the scale.*1 of its.*row 5 of \S+, columns 32 to 63",
    ),
    FaultyWeight(
        "sign of a scale, awq",
        AWQ,
        edits.sign_flipped(f"{LAYER}mlp.gate_proj", 5, 1),
        f"{LAYER}mlp.gate_proj.codes",
        r"sign of the scale.*1 of its.*row 5 of \S+, columns 16 to 31",
    ),
    FaultyWeight(
        "zero points",
        INT4,
        edits.zero_points_raised(f"{LAYER}mlp.down_proj"),
        f"{LAYER}mlp.down_proj.codes",
        r"zero point is off by \+1 in \d+ of its 384 blocks",
    ),
    FaultyWeight(
        "zero points, standard",
        INT4_STANDARD,
        edits.zero_points_raised(f"{LAYER}mlp.down_proj"),
        f"{LAYER}mlp.down_proj.codes",
        r"zero point is off by \+1 in \d+ of its 384 blocks",
    ),
    FaultyWeight(
        "zero points, gptq",
        GPTQ,
        edits.zero_points_raised(f"{LAYER}mlp.down_proj"),
        f"{LAYER}mlp.down_proj.codes",
        r"zero point is off by (mostly )?\+1 in \d+ of its 192 blocks",
    ),
    FaultyWeight(
        "symmetric zero, int4",
        INT4,
        edits.codes_raised("model.embed_tokens", 4),
        "model.embed_tokens.codes",
        r"zero point is off by (mostly )?-1",
    ),
    FaultyWeight(
        "symmetric zero, int8",
        INT8,
        edits.codes_raised(f"{LAYER}self_attn.v_proj", 8),
        f"{LAYER}self_attn.v_proj.codes",
        r"zero point is off by (mostly )?-1",
    ),
    FaultyWeight(
        "scales out of order",
        INT4,
        edits.scales_out_of_order(f"{LAYER}mlp.gate_proj"),
        f"{LAYER}mlp.gate_proj.codes",
        "the scales are stored by columns and read by rows in",
    ),
    FaultyWeight(
        "scales late",
        INT4,
        edits.rewritten(f"{LAYER}mlp.gate_proj.scales", lambda w: np.roll(w, 1)),
        f"{LAYER}mlp.gate_proj.codes",
        "the scales are those of the block before",
    ),
    FaultyWeight(
        "scales halved",
        INT8,
        scaled(f"{LAYER}mlp.gate_proj.scales", 0.5),
        f"{LAYER}mlp.gate_proj.codes",
        r"scale is 0\.5 times the one that fits the codes",
    ),
    FaultyWeight(
        "halves of bytes",
        INT4,
        edits.nibbles_swapped(f"{LAYER}mlp.up_proj"),
        f"{LAYER}mlp.up_proj.codes",
        "wrong order of nibbles",
    ),
    FaultyWeight(
        "one code",
        INT4,
        one_code(f"{LAYER}mlp.up_proj.codes", 3),
        f"{LAYER}mlp.up_proj.codes",
        r"single codes.*1 of its.*row 3 of",
    ),
    FaultyWeight(
        "one code, gptq",
        GPTQ,
        one_code(f"{LAYER}mlp.up_proj.codes", 3),
        f"{LAYER}mlp.up_proj.codes",
        r"its relative error is 0\.\d+, and the manifest recorded",
    ),
    FaultyWeight(
        "zeroed, int4", INT4, edits.zeroed(f"{LAYER}mlp.up_proj.scales"), f"{LAYER}mlp.up_proj.codes", "all zeros"
    ),
    FaultyWeight(
        "not finite",
        INT4,
        edits.rewritten(
            f"{LAYER}mlp.up_proj.scales", lambda w: np.where(np.arange(w.size).reshape(w.shape) == 4, np.nan, w)
        ),
        f"{LAYER}mlp.up_proj.codes",
        "16 of its 6,144 numbers, the first in row 1 of.*column 0, are NaN or infinite",
    ),
    FaultyWeight(
        "swapped, int8",
        INT8,
        other_layer("mlp.up_proj"),
        f"{LAYER}mlp.up_proj.codes",
        "those of model.layers.2.mlp.up_proj.weight",
    ),
    FaultyWeight(
        "block size",
        INT4,
        block_size("MatMulNBits", f"{LAYER}mlp.up_proj", 32),
        f"{LAYER}mlp.up_proj.codes",
        "the graph uses it in an unsupported way",
    ),
    FaultyWeight(
        "norm under awq",
        AWQ,
        scaled(f"{LAYER}input_layernorm.weight", 2.0),
        f"{LAYER}input_layernorm.weight",
        r"divided by the scales in the columns of q_proj, k_proj, v_proj.*their median is (2|1.99\d) times",
    ),
    FaultyWeight(
        "zeroed norm under awq",
        AWQ,
        edits.zeroed(f"{LAYER}post_attention_layernorm.weight"),
        f"{LAYER}post_attention_layernorm.weight",
        "all zeros",
    ),
    FaultyWeight(
        "cos and sin",
        TABLES,
        cos_and_sin_swapped,
        "model.rotary_emb.cos",
        "cos and sin are swapped",
        ("model.rotary_emb.sin",),
    ),
    FaultyWeight(
        "position",
        TABLES,
        position_late,
        "model.rotary_emb.cos",
        "RoPE rotates each position by the angles of the next one",
        ("model.rotary_emb.sin",),
    ),
    FaultyWeight(
        "type",
        TABLES,
        theta(10_000),
        "model.rotary_emb.inv_freq",
        "RoPE is of the default type, and config.json has linear",
    ),
    FaultyWeight(
        "a table half as long",
        TABLES,
        short_table,
        "model.rotary_emb.cos",
        "correct up to position 63, and wrong from there on",
        ("model.rotary_emb.sin",),
    ),
    FaultyWeight("a table times a half", TABLES, halved, "model.rotary_emb.sin", r"it is 0\.5 times the expected one"),
    FaultyWeight(
        "one more",
        FLOAT,
        edits.rewritten("model.norm.weight", lambda weight: weight + 1),
        "model.norm.weight",
        "are the source's plus 1",
    ),
    FaultyWeight(
        "theta",
        STANDARD,
        theta(123_000),
        "model.rotary_emb.inv_freq",
        "theta of 123,000, and config.json has 10,000 and the type default",
    ),
]


@pytest.mark.parametrize("faulty", FAULTY, ids=str)
def test_a_fault_is_reported(faulty: FaultyWeight, shelf: Shelf, tmp_path: Path) -> None:
    pair = shelf.copy(faulty.base, tmp_path / "out")
    with ArtifactEditor(pair.artifact) as editor:
        faulty.edit(editor)
    reported = {error.name: error.fault for error in audited(pair.artifact, pair.checkpoint) if error.fault is not None}
    assert faulty.tensor in reported, reported
    assert re.search(faulty.words, reported[faulty.tensor]), reported[faulty.tensor]
    assert set(reported) == {faulty.tensor, *faulty.others}, reported
