"""Faults in norms, residuals, the MLP, biases and tied embeddings."""

from .edits import layers as layers
from .edits import weights as weights
from .fault import EXAONE, EXAONE_FP16, EXAONE_STANDARD, QWEN, QWEN_STANDARD, Fault, inside

NORMS = [
    Fault(
        "q norm skipped",
        EXAONE,
        layers.norm_skipped("model.layers.2.self_attn.q_norm"),
        inside(2, "self_attn.q_norm", "self_attn"),
        ("norm", "skip|missing|not"),
    ),
    Fault(
        "k norm skipped",
        EXAONE_STANDARD,
        layers.norm_skipped("model.layers.1.self_attn.k_norm"),
        inside(1, "self_attn.k_norm", "self_attn"),
        ("norm", "skip|missing|not"),
        slow=True,
    ),
    Fault(
        "norm skipped",
        EXAONE,
        layers.norm_skipped("model.layers.1.post_feedforward_layernorm"),
        inside(1, "post_feedforward_layernorm"),
        ("norm", "skip|missing|not"),
        slow=True,
    ),
    Fault(
        "final norm skipped",
        QWEN,
        layers.norm_skipped("model.norm"),
        ("model.norm",),
        ("norm", "skip|missing|not"),
        slow=True,
    ),
    Fault(
        "pre-norm",
        EXAONE,
        layers.norm_before(1),
        inside(1, "post_attention_layernorm", "self_attn", "self_attn.q_proj"),
        ("norm", "before"),
    ),
    Fault(
        "epsilon 1e-5", QWEN, layers.epsilon(1e-5), inside(0, "input_layernorm"), ("eps", "1e-0?5", "1e-0?6"), "drifted"
    ),
    Fault(
        "epsilon 1e-6",
        EXAONE,
        layers.epsilon(1e-6),
        inside(0, "self_attn.q_norm", "post_attention_layernorm"),
        ("eps", "1e-0?6", "1e-0?5"),
        "drifted",
        slow=True,
    ),
    Fault(
        "1 + weight",
        QWEN,
        weights.rewritten("model.layers.1.input_layernorm.weight", lambda w: w + 1),
        inside(1, "input_layernorm"),
        (r"1 \+|plus (1|one)|(1|one) (too|more|higher|larger)",),
        slow=True,
    ),
    Fault(
        "another norm's weight",
        QWEN,
        weights.copied("model.layers.2.input_layernorm.weight", "model.layers.1.input_layernorm.weight"),
        inside(1, "input_layernorm"),
        ("layers.2",),
        slow=True,
    ),
    Fault(
        "infinite norm",
        EXAONE_FP16,
        weights.overflowed("model.layers.2.post_attention_layernorm.weight"),
        inside(2, "post_attention_layernorm"),
        ("inf|finite",),
        slow=True,
    ),
]
STRUCTURE = [
    Fault(
        "residual left out",
        EXAONE,
        layers.residual_left_out(2),
        (*inside(2, "post_attention_layernorm"), "model.layers.2"),
        ("residual",),
    ),
    Fault(
        "residual after the norm",
        QWEN,
        layers.residual_after_norm(1),
        (
            *inside(1, "post_attention_layernorm", "mlp", "mlp.down_proj"),
            "model.layers.1",
            "model.layers.2.input_layernorm",
        ),
        ("residual",),
    ),
    Fault("gate and up swapped", EXAONE, layers.gate_and_up_swapped(1), inside(1, "mlp"), ("gate",), slow=True),
    Fault("GELU for SiLU", QWEN, layers.gelu(2), inside(2, "mlp"), ("silu|activation",), slow=True),
    Fault(
        "bias dropped",
        QWEN,
        layers.bias_dropped("model.layers.1.self_attn.qkv_proj"),
        inside(1, "self_attn.qkv_proj", "self_attn.q_proj"),
        ("bias",),
    ),
    Fault(
        "bias zero",
        QWEN,
        weights.zeroed("model.layers.2.self_attn.qkv_proj.bias", slice(64, 96)),
        inside(2, "self_attn.qkv_proj", "self_attn.k_proj"),
        ("bias", "zero"),
        slow=True,
    ),
    Fault(
        "bias of v dropped, standard",
        QWEN_STANDARD,
        layers.bias_dropped("model.layers.0.self_attn.v_proj"),
        inside(0, "self_attn.v_proj"),
        ("bias",),
        slow=True,
    ),
    Fault("tied", QWEN, layers.tied, ("lm_head",), ("embed",)),
    Fault(
        "tied bytes",
        EXAONE,
        weights.copied("model.embed_tokens.weight", "lm_head.weight"),
        ("lm_head",),
        ("embed",),
        slow=True,
    ),
]
