"""Faults of quantized weights, and of float weights that scales are folded into."""

import numpy as np
import onnx_ir as ir

from ..artifacts import Base
from ..faults.artifact_editor import ArtifactEditor
from ..faults.edits import weights as edits
from ..faults.edits.attention import Edit
from .faulty_weight import LAYER, FaultyWeight, scaled

RTN = {"method": "rtn", "block_size": 16}
INT4 = Base("qwen2", precision="int4", options=RTN)
INT8 = Base("exaone4", precision="int8", options=RTN)
INT4_STANDARD = Base("qwen2", precision="int4", target="standard", options=RTN)
GPTQ = Base("exaone4", precision="int4", options={"method": "gptq", "windows": 2, "block_size": 32})
AWQ = Base("qwen2", precision="int4", options={"method": "awq", "windows": 2, "block_size": 16})


def one_code(name: str, row: int) -> Edit:
    def edit(editor: ArtifactEditor) -> None:
        codes = editor.array(name)
        codes[row, 0, 0] ^= 4

    return edit


def block_size(op: str, under: str, size: int) -> Edit:
    def edit(editor: ArtifactEditor) -> None:
        editor.nodes(op, under=under)[0].attributes["block_size"] = ir.AttrInt64("block_size", size)

    return edit


def other_layer(name: str) -> Edit:
    """The codes and scales of layer 1 are those of layer 2."""

    def edit(editor: ArtifactEditor) -> None:
        for leaf in ("codes", "scales"):
            edits.copied(f"model.layers.2.{name}.{leaf}", f"{LAYER}{name}.{leaf}")(editor)

    return edit


QUANTIZED_FAULTS = [
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
]
