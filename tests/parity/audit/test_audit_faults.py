"""The audit of weights: what is sound has no fault, whatever its layout; what is not is told, with its cause."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from intaglio.artifact import read_manifest
from intaglio.models.checkpoint import Checkpoint
from intaglio.parity.audit.weights import audit
from intaglio.parity.report.result import TensorError

from ..artifacts import Base, Shelf
from ..faults.edits import weights as plants
from ..faults.edits.attention import cos_and_sin_exchanged, other_positions, short_table, tables
from ..faults.surgery import Array, Surgery

Plant = Callable[[Surgery], None]

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


def scaled(name: str, factor: float) -> Plant:
    return plants.rewritten(name, lambda weight: weight * factor)


def rows(name: str, change: Callable[[Array], Array]) -> Plant:
    """A change to a float projection as the checkpoint has it, [N, K]."""
    return plants.rewritten(name, lambda weight: change(weight.T.copy()).T)


def exchanged(weight: Array, first: slice, second: slice) -> Array:
    weight[first], weight[second] = weight[second].copy(), weight[first].copy()
    return weight


def zeroed_rows(weight: Array) -> Array:
    weight[20:] = 0
    return weight


def own_layout(name: str) -> Plant:
    """[N, K] written where [K, N] is read."""
    return plants.rewritten(name, lambda weight: weight.T.reshape(weight.shape))


def one_code(name: str, row: int) -> Plant:
    def plant(s: Surgery) -> None:
        codes = s.array(name)
        codes[row, 0, 0] ^= 4

    return plant


def block_size(op: str, under: str, size: int) -> Plant:
    def plant(s: Surgery) -> None:
        s.nodes(op, under=under)[0].attributes["block_size"] = ir.AttrInt64("block_size", size)

    return plant


def given(name: str, other: str) -> Plant:
    """The node that multiplies by one weight takes another, of the same shape."""

    def plant(s: Surgery) -> None:
        value = s.graph.initializers[name]
        node = next(iter(value.uses())).node
        node.replace_input_with(1, s.graph.initializers[other])

    return plant


def without_bias(s: Surgery) -> None:
    add = s.nodes("Add", under=f"{LAYER}self_attn.q_proj")[0]
    value = add.inputs[0]
    assert value is not None
    s.reroute(add.outputs[0], value)
    s.sweep()


position_late = other_positions(lambda s, given: s.insert("Add", [given, s.constant(1)], "model"))


def halved(s: Surgery) -> None:
    """The table of sines alone."""
    _, sin = tables(s)
    users = list(sin.uses())
    small = s.insert("Mul", [sin, s.constant(0.5, np.float32)], "model")
    for user, index in users:
        user.replace_input_with(index, small)


def theta(value: float) -> Plant:
    def plant(s: Surgery) -> None:
        frequencies = s.array("model.rotary_emb.inv_freq")
        frequencies[:] = value ** (-np.arange(len(frequencies)) / len(frequencies))

    return plant


@dataclass(frozen=True)
class Planted:
    """``tensor`` is the initializer that must be told, with words that match ``words``; nothing else may be."""

    name: str
    base: Base
    plant: Plant
    tensor: str
    words: str
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


OUT, GATE, UP, DOWN = (f"{LAYER}{name}_proj.weight" for name in ("self_attn.o", "mlp.gate", "mlp.up", "mlp.down"))
PLANTED = [
    Planted("zeroed", FLOAT, plants.zeroed(GATE), GATE, r"all zeros.*root mean square of 0\.\d"),
    Planted(
        "transposed", FLOAT, plants.transposed(OUT), OUT, r"all of its rows are those of \S+o_proj.weight transposed"
    ),
    Planted("own layout", FLOAT, own_layout(DOWN), DOWN, "in its own layout, read as if it were stored transposed"),
    Planted("negated", FLOAT, scaled(UP, -1), UP, "all of its rows have the opposite sign"),
    Planted("scaled", FLOAT, scaled(UP, 0.5), UP, r"are 0\.5 times the source's"),
    Planted(
        "another layer's", FLOAT, plants.copied(GATE.replace("1", "2"), GATE), GATE, r"those of model.layers.2.mlp.gate"
    ),
    Planted("gate for up", FLOAT, plants.copied(GATE, UP), UP, r"those of model.layers.1.mlp.gate"),
    Planted(
        "norm",
        FLOAT,
        plants.copied(f"{LAYER}input_layernorm.weight", "model.norm.weight"),
        "model.norm.weight",
        "its numbers are those of model.layers.1.input_layernorm.weight",
    ),
    Planted(
        "bias", STANDARD, plants.zeroed(f"{LAYER}self_attn.k_proj.bias"), f"{LAYER}self_attn.k_proj.bias", "all zeros"
    ),
    Planted(
        "no bias",
        STANDARD,
        without_bias,
        f"{LAYER}self_attn.q_proj.bias",
        r"the bias is missing: no initializer of the graph was made from model.layers.1.self_attn.q_proj.bias",
    ),
    Planted(
        "one number",
        FLOAT,
        rows(DOWN, lambda w: w + 0.01 * (np.arange(w.size) == 700).reshape(w.shape)),
        DOWN,
        r"1 of its numbers are not the source's",
    ),
    Planted("rounded", FLOAT, plants.half_precision(UP), UP, "rounded to fp16"),
    Planted(
        "infinite",
        HALF,
        plants.overflowed("model.norm.weight"),
        "model.norm.weight",
        "1 of its 64 numbers.*column 3, are NaN or infinite",
    ),
    Planted(
        "heads",
        HALF,
        rows(f"{LAYER}self_attn.q_proj.weight", lambda w: exchanged(w, slice(16), slice(16, 32))),
        f"{LAYER}self_attn.q_proj.weight",
        r"32 of its 64 rows.*row 0 of \S+ holds row 16 of.*head 1 where head 0 belongs",
    ),
    Planted(
        "columns",
        FLOAT,
        plants.rewritten(OUT, lambda w: exchanged(w, slice(16), slice(16, 32))),
        OUT,
        "columns in another order: column 0 holds column 16",
    ),
    Planted(
        "k for v",
        FLOAT,
        rows(f"{LAYER}self_attn.qkv_proj.weight", lambda w: exchanged(w, slice(64, 96), slice(96, 128))),
        f"{LAYER}self_attn.qkv_proj.weight",
        r"those of \S+v_proj.weight, \S+k_proj.weight",
    ),
    Planted("part", FLOAT, rows(DOWN, zeroed_rows), DOWN, r"44 of its 64 rows, row 20 of \S+ to row 63, are zeros"),
    Planted(
        "untied, tied",
        FLOAT,
        plants.copied("model.embed_tokens.weight", "lm_head.weight"),
        "lm_head.weight",
        "the head is the embedding, and config.json has tie_word_embeddings = false",
    ),
    Planted(
        "half of a vocabulary",
        TIED,
        plants.rows_late("model.embed_tokens.weight", 144),
        "model.embed_tokens.weight",
        "144 of its 288 rows.*lie elsewhere",
    ),
    Planted(
        "wired to another",
        FLOAT,
        given(GATE, UP),
        UP,
        r"it is the weight of model.layers.1.mlp.up_proj, and model.layers.1.mlp.gate_proj computes with it",
        (GATE,),
    ),
    Planted(
        "sign of a scale, int4",
        INT4,
        plants.sign_flipped(f"{LAYER}mlp.up_proj", 5, 1),
        f"{LAYER}mlp.up_proj.codes",
        r"sign of the scale is turned over in 1 of its 384 blocks, the first in row 5 of \S+, columns 16 to 31",
    ),
    Planted(
        "sign of a scale, int8",
        INT8,
        plants.sign_flipped(f"{LAYER}self_attn.v_proj", 9, 0),
        f"{LAYER}self_attn.v_proj.codes",
        r"sign of the scale.*1 of its.*row 9 of \S+, columns 0 to 15",
    ),
    Planted(
        "sign of a scale, standard",
        INT4_STANDARD,
        plants.sign_flipped(f"{LAYER}mlp.up_proj", 7, 1, columns=True),
        f"{LAYER}mlp.up_proj.codes",
        r"sign of the scale.*row 7 of \S+, columns 16 to 31",
    ),
    Planted(
        "sign of a scale, gptq",
        GPTQ,
        plants.sign_flipped(f"{LAYER}mlp.up_proj", 5, 1),
        f"{LAYER}mlp.up_proj.codes",
        r"sign of the scale.*1 of its.*row 5 of \S+, columns 32 to 63",
    ),
    Planted(
        "sign of a scale, awq",
        AWQ,
        plants.sign_flipped(f"{LAYER}mlp.gate_proj", 5, 1),
        f"{LAYER}mlp.gate_proj.codes",
        r"sign of the scale.*1 of its.*row 5 of \S+, columns 16 to 31",
    ),
    Planted(
        "zero points",
        INT4,
        plants.zero_points_late(f"{LAYER}mlp.down_proj"),
        f"{LAYER}mlp.down_proj.codes",
        r"zero point is off by \+1 in \d+ of its 384 blocks",
    ),
    Planted(
        "zero points, standard",
        INT4_STANDARD,
        plants.zero_points_late(f"{LAYER}mlp.down_proj"),
        f"{LAYER}mlp.down_proj.codes",
        r"zero point is off by \+1 in \d+ of its 384 blocks",
    ),
    Planted(
        "zero points, gptq",
        GPTQ,
        plants.zero_points_late(f"{LAYER}mlp.down_proj"),
        f"{LAYER}mlp.down_proj.codes",
        r"zero point is off by (mostly )?\+1 in \d+ of its 192 blocks",
    ),
    Planted(
        "symmetric zero, int4",
        INT4,
        plants.codes_late("model.embed_tokens", 4),
        "model.embed_tokens.codes",
        r"zero point is off by (mostly )?-1",
    ),
    Planted(
        "symmetric zero, int8",
        INT8,
        plants.codes_late(f"{LAYER}self_attn.v_proj", 8),
        f"{LAYER}self_attn.v_proj.codes",
        r"zero point is off by (mostly )?-1",
    ),
    Planted(
        "scales out of order",
        INT4,
        plants.scales_out_of_order(f"{LAYER}mlp.gate_proj"),
        f"{LAYER}mlp.gate_proj.codes",
        "scales lie in the order of columns, and are read in that of rows",
    ),
    Planted(
        "scales late",
        INT4,
        plants.rewritten(f"{LAYER}mlp.gate_proj.scales", lambda w: np.roll(w, 1)),
        f"{LAYER}mlp.gate_proj.codes",
        "scales lie one block too far on",
    ),
    Planted(
        "scales halved",
        INT8,
        scaled(f"{LAYER}mlp.gate_proj.scales", 0.5),
        f"{LAYER}mlp.gate_proj.codes",
        r"scale is 0\.5 times that of the codes",
    ),
    Planted(
        "halves of bytes",
        INT4,
        plants.nibbles_exchanged(f"{LAYER}mlp.up_proj"),
        f"{LAYER}mlp.up_proj.codes",
        "wrong order of halves of bytes",
    ),
    Planted(
        "one code",
        INT4,
        one_code(f"{LAYER}mlp.up_proj.codes", 3),
        f"{LAYER}mlp.up_proj.codes",
        r"single codes.*1 of its.*row 3 of",
    ),
    Planted(
        "one code, gptq",
        GPTQ,
        one_code(f"{LAYER}mlp.up_proj.codes", 3),
        f"{LAYER}mlp.up_proj.codes",
        r"its relative error is 0\.\d+, and the manifest recorded",
    ),
    Planted(
        "zeroed, int4", INT4, plants.zeroed(f"{LAYER}mlp.up_proj.scales"), f"{LAYER}mlp.up_proj.codes", "all zeros"
    ),
    Planted(
        "not finite",
        INT4,
        plants.rewritten(
            f"{LAYER}mlp.up_proj.scales", lambda w: np.where(np.arange(w.size).reshape(w.shape) == 4, np.nan, w)
        ),
        f"{LAYER}mlp.up_proj.codes",
        "16 of its 6,144 numbers, the first in row 1 of.*column 0, are NaN or infinite",
    ),
    Planted(
        "swapped, int8",
        INT8,
        lambda s: (
            [
                plants.copied(f"{LAYER.replace('1', '2')}mlp.up_proj.{leaf}", f"{LAYER}mlp.up_proj.{leaf}")(s)
                for leaf in ("codes", "scales")
            ]
            and None
        ),
        f"{LAYER}mlp.up_proj.codes",
        "those of model.layers.2.mlp.up_proj.weight",
    ),
    Planted(
        "block size",
        INT4,
        block_size("MatMulNBits", f"{LAYER}mlp.up_proj", 32),
        f"{LAYER}mlp.up_proj.codes",
        "graph cannot be followed",
    ),
    Planted(
        "norm under awq",
        AWQ,
        scaled(f"{LAYER}input_layernorm.weight", 2.0),
        f"{LAYER}input_layernorm.weight",
        r"divided by the scales in the columns of q_proj, k_proj, v_proj.*in the middle they are (2|1.99\d) times",
    ),
    Planted(
        "zeroed norm under awq",
        AWQ,
        plants.zeroed(f"{LAYER}post_attention_layernorm.weight"),
        f"{LAYER}post_attention_layernorm.weight",
        "all zeros",
    ),
    Planted(
        "cos and sin",
        TABLES,
        cos_and_sin_exchanged,
        "model.rotary_emb.cos",
        "cos and sin are exchanged",
        ("model.rotary_emb.sin",),
    ),
    Planted(
        "position",
        TABLES,
        position_late,
        "model.rotary_emb.cos",
        "RoPE turns each position by the angles of the one after it",
        ("model.rotary_emb.sin",),
    ),
    Planted(
        "type",
        TABLES,
        theta(10_000),
        "model.rotary_emb.inv_freq",
        "RoPE is of the default type, and config.json has linear",
    ),
    Planted(
        "a table half as long",
        TABLES,
        short_table,
        "model.rotary_emb.cos",
        "right up to position 63, and wrong from there on",
        ("model.rotary_emb.sin",),
    ),
    Planted("a table times a half", TABLES, halved, "model.rotary_emb.sin", r"it is 0\.5 times what it should be"),
    Planted(
        "one more",
        FLOAT,
        plants.rewritten("model.norm.weight", lambda weight: weight + 1),
        "model.norm.weight",
        "are the source's plus 1",
    ),
    Planted(
        "theta",
        STANDARD,
        theta(123_000),
        "model.rotary_emb.inv_freq",
        "theta of 123,000, and config.json has 10,000 and the type default",
    ),
]


@pytest.mark.parametrize("planted", PLANTED, ids=str)
def test_planted_fault_is_told(planted: Planted, shelf: Shelf, tmp_path: Path) -> None:
    pair = shelf.copy(planted.base, tmp_path / "out")
    with Surgery(pair.artifact) as surgery:
        planted.plant(surgery)
    told = {error.name: error.fault for error in audited(pair.artifact, pair.checkpoint) if error.fault is not None}
    assert planted.tensor in told, told
    assert re.search(planted.words, told[planted.tensor]), told[planted.tensor]
    assert set(told) == {planted.tensor, *planted.others}, told
