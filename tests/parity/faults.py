"""Faults that exporters have been seen to make, or could: each with how to plant it and what a check must say of it."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from intaglio.parity.result import Finding, Verdict
from intaglio.tests.models.variants import GLOBAL, LLAMA3, YARN

from . import plants_attention as attention
from . import plants_heads as heads
from . import plants_layers as layers
from . import plants_weights as weights
from .artifacts import Base
from .surgery import Surgery

EXAONE = Base("exaone4")
EXAONE_STANDARD = Base("exaone4", target="standard")
EXAONE_LLAMA3 = Base("exaone4", changes=GLOBAL, rope=LLAMA3 | {"original_max_position_embeddings": 16})
EXAONE_INT4 = Base("exaone4", precision="int4", options={"method": "rtn", "block_size": 32})
EXAONE_INT8 = Base("exaone4", precision="int8", options={"method": "rtn", "block_size": 32})
EXAONE_FP16 = Base("exaone4", precision="fp16")
QWEN = Base("qwen2")
QWEN_SLIDING = Base("qwen2", changes={"use_sliding_window": True})
QWEN_STANDARD = Base("qwen2", target="standard", rope={"rope_type": "linear", "factor": 2.5})
QWEN_YARN = Base("qwen2", rope=YARN)
QWEN_INT4 = Base("qwen2", precision="int4", options={"method": "rtn", "block_size": 32})
QWEN_INT4_STANDARD = Base("qwen2", precision="int4", target="standard", options={"method": "rtn", "block_size": 32})
QWEN_CLASSES = Base("qwen2", "text-classification")
QWEN_CLASSES_STANDARD = Base("qwen2", "text-classification", target="standard")
QWEN_TAGS = Base("qwen2", "token-classification")
EXAONE_ANSWERS = Base("exaone4", "question-answering")
QWEN_STATES = Base("qwen2", "feature-extraction")

PROMPT, DECODE, CHUNK, BATCH, LEFT = "prompt", "decode", "chunk", "batch", "left"
"""Ways of running an artifact, see ``bite.py``: a prompt at once, then token by token behind a shorter one, or several
tokens behind it, a batch padded on the right, and one padded on the left (target standard only)."""

ALL = frozenset({PROMPT, DECODE, CHUNK, BATCH, LEFT})


@dataclass(frozen=True)
class Fault:
    """``plant`` changes an opened artifact of ``base``.

    Args:
        modules: paths of modules, one of which a finding must name: the first one that is at fault, and where that is
            nothing of its own (a mask, a table) what stands for it.
        words: regular expressions that the cause must match, whatever the case.
        shows: the ways of running in which it makes a difference; in the others there must be none.
    """

    name: str
    base: Base
    plant: Callable[[Surgery], None]
    modules: tuple[str, ...]
    words: tuple[str, ...]
    verdict: Verdict = "broken"
    shows: frozenset[str] = ALL
    slow: bool = False

    def __str__(self) -> str:
        return self.name

    def found_by(self, finding: Finding) -> bool:
        """Whether a finding names the place and the cause."""
        return finding.module in self.modules and all(re.search(w, finding.cause, re.IGNORECASE) for w in self.words)


def _layer(index: int, *parts: str) -> tuple[str, ...]:
    """``model.layers.3.self_attn`` and the like."""
    return tuple(f"model.layers.{index}.{part}" for part in parts)


def _projection(index: int, name: str) -> str:
    return f"model.layers.{index}.{'mlp' if name in ('gate', 'up', 'down') else 'self_attn'}.{name}_proj"


ROTARY = ("model.rotary_emb", *_layer(0, "self_attn"))
PER_ROW = frozenset({DECODE, CHUNK, BATCH, LEFT})

WINDOWS = [
    Fault("window + 1", EXAONE, attention.window(7, 1), _layer(1, "self_attn"), ("window", r"\b6\b", r"\b7\b")),
    Fault("window - 1", EXAONE, attention.window(5), _layer(0, "self_attn"), ("window", r"\b6\b", r"\b5\b")),
    Fault("no window", EXAONE, attention.window(None, 2), _layer(2, "self_attn"), ("window", r"\b6\b"), slow=True),
    Fault("window on a global layer", EXAONE, attention.window(6, 3), _layer(3, "self_attn"), ("window", "global")),
    Fault("Qwen2 window + 1", QWEN_SLIDING, attention.window(7), _layer(2, "self_attn"), ("window", r"\b7\b"), slow=True),
    Fault("Qwen2 window - 1", QWEN_SLIDING, attention.window(5, 3), _layer(3, "self_attn"), ("window", r"\b5\b")),
    Fault("window + 1 in a mask", EXAONE_STANDARD, attention.mask_window(7), _layer(0, "self_attn"), ("window", r"\b7\b")),
    Fault("window - 1 in a mask", EXAONE_STANDARD, attention.mask_window(5), _layer(0, "self_attn"), ("window", r"\b5\b"), slow=True),
]
ROPE = [
    Fault("RoPE on a global layer", EXAONE, attention.rotate(3), _layer(3, "self_attn"), ("rope", "global|has none")),
    Fault("RoPE on a global layer, standard", EXAONE_STANDARD, attention.rotate(3), _layer(3, "self_attn"), ("rope", "global|has none"), slow=True),
    Fault("no RoPE", EXAONE, attention.no_rotation(1), _layer(1, "self_attn"), ("rope",)),
    Fault("theta", QWEN, attention.plain_angles(1e6), ROTARY, ("rope", "theta", r"1e\+?0?6|1,?000,?000")),
    Fault("theta, standard", EXAONE_STANDARD, attention.plain_angles(5e5), ROTARY, ("rope", "theta"), slow=True),
    Fault("llama3 left out", EXAONE_LLAMA3, attention.plain_angles(1e4), ROTARY, ("rope", "llama3", "default")),
    Fault("linear left out", QWEN_STANDARD, attention.plain_angles(1e4), ROTARY, ("rope", "linear", "default")),
    Fault("yarn left out", QWEN_YARN, attention.plain_angles(1e4), ROTARY, ("rope", "yarn", "default"), slow=True),
    Fault("cos and sin exchanged", QWEN, attention.cos_and_sin_exchanged, ROTARY, ("rope", "cos", "sin")),
    Fault("interleaved pairs", QWEN, attention.interleaved, ROTARY, ("rope", "pairs|interleaved"), slow=True),
    Fault("a table half as long", QWEN, attention.short_table, ROTARY, ("rope",), shows=frozenset({PROMPT})),
]
ATTENTION = [
    Fault("scale", EXAONE, attention.scale(2, 1 / 16), _layer(2, "self_attn"), ("scale",)),
    Fault("key/value heads in turn", EXAONE, attention.wrong_groups(1), _layer(1, "self_attn"), ("head",)),
    Fault("future tokens seen", EXAONE_STANDARD, attention.sees_the_future, _layer(0, "self_attn"), ("causal|future|later",), slow=True),
    Fault("mask ignored", QWEN, attention.mask_ignored, ("model", *_layer(0, "self_attn")), ("mask|padding",), shows=frozenset({BATCH})),
    Fault("mask ignored, standard", EXAONE_STANDARD, attention.mask_ignored, ("model", *_layer(0, "self_attn")), ("mask|padding",), shows=frozenset({BATCH, LEFT})),
    Fault("short at decode", EXAONE, attention.short_at_decode, ("model", *_layer(0, "self_attn")), ("cache",), shows=frozenset({DECODE, BATCH})),
    Fault("last cached token unseen", EXAONE_STANDARD, attention.last_cached_unseen, ("model", *_layer(0, "self_attn")), ("cache",), shows=frozenset({DECODE, BATCH, LEFT})),
    Fault("short behind a cache", QWEN, attention.short_at_chunks, ("model", *_layer(0, "self_attn")), ("cache",), shows=frozenset({CHUNK})),
    Fault("one position late behind a cache", QWEN_STANDARD, attention.late_behind_cache, ROTARY, ("position",), shows=PER_ROW),
    Fault("keys and values of a cache exchanged", EXAONE, attention.cache_halves_exchanged(2), _layer(2, "self_attn"), ("cache",), shows=PER_ROW),
    Fault("caches of two layers exchanged", EXAONE_STANDARD, attention.caches_exchanged(1, 2), _layer(1, "self_attn"), ("cache",), shows=PER_ROW, slow=True),
]
NORMS = [
    Fault("q norm skipped", EXAONE, layers.norm_skipped("model.layers.2.self_attn.q_norm"), _layer(2, "self_attn.q_norm", "self_attn"), ("norm", "skip|missing|not")),
    Fault("k norm skipped", EXAONE_STANDARD, layers.norm_skipped("model.layers.1.self_attn.k_norm"), _layer(1, "self_attn.k_norm", "self_attn"), ("norm", "skip|missing|not"), slow=True),
    Fault("norm skipped", EXAONE, layers.norm_skipped("model.layers.1.post_feedforward_layernorm"), _layer(1, "post_feedforward_layernorm"), ("norm", "skip|missing|not"), slow=True),
    Fault("final norm skipped", QWEN, layers.norm_skipped("model.norm"), ("model.norm",), ("norm", "skip|missing|not")),
    Fault("pre-norm", EXAONE, layers.norm_before(1), _layer(1, "post_attention_layernorm", "self_attn", "self_attn.q_proj"), ("norm", "before")),
    Fault("epsilon 1e-5", QWEN, layers.epsilon(1e-5), _layer(0, "input_layernorm"), ("eps", "1e-0?5", "1e-0?6"), "drifted"),
    Fault("epsilon 1e-6", EXAONE, layers.epsilon(1e-6), _layer(0, "self_attn.q_norm", "post_attention_layernorm"), ("eps", "1e-0?6", "1e-0?5"), "drifted", slow=True),
    Fault("1 + weight", QWEN, weights.rewritten("model.layers.1.input_layernorm.weight", lambda w: w + 1), _layer(1, "input_layernorm"), (r"\b1\b|one",)),
    Fault("another norm's weight", QWEN, weights.copied("model.layers.2.input_layernorm.weight", "model.layers.1.input_layernorm.weight"), _layer(1, "input_layernorm"), ("layers.2",)),
    Fault("infinite norm", EXAONE_FP16, weights.overflowed("model.layers.2.post_attention_layernorm.weight"), _layer(2, "post_attention_layernorm"), ("inf|finite",)),
]
STRUCTURE = [
    Fault("residual left out", EXAONE, layers.residual_left_out(2), _layer(2, "post_attention_layernorm") + ("model.layers.2",), ("residual",)),
    Fault("residual behind the norm", QWEN, layers.residual_behind_norm(1), _layer(1, "post_attention_layernorm", "mlp", "mlp.down_proj") + ("model.layers.1", "model.layers.2.input_layernorm"), ("residual",)),
    Fault("gate and up exchanged", EXAONE, layers.gate_and_up_exchanged(1), _layer(1, "mlp"), ("gate",)),
    Fault("GELU for SiLU", QWEN, layers.gelu(2), _layer(2, "mlp"), ("silu|activation",), slow=True),
    Fault("bias dropped", QWEN, layers.bias_dropped("model.layers.1.self_attn.qkv_proj"), _layer(1, "self_attn.qkv_proj", "self_attn.q_proj"), ("bias",)),
    Fault("bias zero", QWEN, weights.zeroed("model.layers.2.self_attn.qkv_proj.bias", slice(64, 96)), _layer(2, "self_attn.qkv_proj", "self_attn.k_proj"), ("bias", "zero")),
    Fault("bias of v dropped, standard", QWEN_STANDARD, layers.bias_dropped("model.layers.0.self_attn.v_proj"), _layer(0, "self_attn.v_proj"), ("bias",), slow=True),
    Fault("tied", QWEN, layers.tied, ("lm_head",), ("embed",)),
    Fault("tied bytes", EXAONE, weights.copied("model.embed_tokens.weight", "lm_head.weight"), ("lm_head",), ("embed",)),
]
WEIGHTS = [
    Fault("transposed", EXAONE, weights.transposed("model.layers.1.self_attn.o_proj.weight"), _layer(1, "self_attn.o_proj"), ("transpos",)),
    Fault("zeroed", QWEN, weights.zeroed("model.layers.2.mlp.down_proj.weight"), _layer(2, "mlp.down_proj"), ("zero",)),
    Fault("swapped", QWEN, weights.swapped("model.layers.1.mlp.gate_proj.weight", "model.layers.2.mlp.gate_proj.weight"), _layer(1, "mlp.gate_proj"), ("layers.2.mlp.gate_proj",)),
    Fault("copied", EXAONE, weights.copied("model.layers.2.self_attn.v_proj.weight", "model.layers.3.self_attn.v_proj.weight"), _layer(3, "self_attn.v_proj"), ("layers.2.self_attn.v_proj",), slow=True),
    Fault("negated", QWEN, weights.rewritten("model.layers.0.mlp.up_proj.weight", lambda w: -w), _layer(0, "mlp.up_proj"), ("negat|sign",), slow=True),
    Fault("heads permuted", EXAONE, weights.heads_permuted("model.layers.2.self_attn.q_proj.weight", (1, 0, 2, 3)), _layer(2, "self_attn.q_proj"), ("head|rows|permut",)),
    Fault("half of the head's rows", QWEN, weights.rows_late("lm_head.weight", 144), ("lm_head",), ("row",)),
    Fault("half of the embedding's rows", EXAONE, weights.rows_late("model.embed_tokens.weight", 144), ("model.embed_tokens",), ("row",), slow=True),
    Fault("rounded to fp16", QWEN, weights.half_precision("model.layers.1.mlp.down_proj.weight"), _layer(1, "mlp.down_proj"), ("fp16|float16|half|round",), "drifted"),
    Fault("infinite in float32", QWEN, weights.overflowed("model.norm.weight"), ("model.norm",), ("inf|finite",), slow=True),
]
QUANTIZED = [
    Fault("sign of a scale, int4", EXAONE_INT4, weights.sign_flipped(_projection(1, "o"), 5, 1), _layer(1, "self_attn.o_proj"), ("sign|negat",)),
    Fault("sign of a scale, int8", EXAONE_INT8, weights.sign_flipped(_projection(2, "down"), 9, 0), _layer(2, "mlp.down_proj"), ("sign|negat",)),
    Fault("sign of a scale, standard", QWEN_INT4_STANDARD, weights.sign_flipped(_projection(2, "up"), 7, 1, columns=True), _layer(2, "mlp.up_proj"), ("sign|negat",), slow=True),
    Fault("zero points off by one", QWEN_INT4, weights.zero_points_late(_projection(1, "down")), _layer(1, "mlp.down_proj"), ("zero point",)),
    Fault("zero points off by one, packed", QWEN_INT4, weights.zero_points_late(_projection(0, "qkv")), _layer(0, "self_attn.qkv_proj", "self_attn.q_proj"), ("zero point",), slow=True),
    Fault("zero points off by one, standard", QWEN_INT4_STANDARD, weights.zero_points_late(_projection(3, "gate")), _layer(3, "mlp.gate_proj"), ("zero point",), slow=True),
    Fault("symmetric zero off by one, int4", QWEN_INT4, weights.codes_late("model.embed_tokens", 4), ("model.embed_tokens",), ("zero point",)),
    Fault("symmetric zero off by one, int8", EXAONE_INT8, weights.codes_late(_projection(1, "v"), 8), _layer(1, "self_attn.v_proj"), ("zero point",), slow=True),
    Fault("scales in another order", EXAONE_INT4, weights.scales_out_of_order(_projection(3, "gate")), _layer(3, "mlp.gate_proj"), ("scale",)),
    Fault("halves of bytes exchanged", QWEN_INT4, weights.nibbles_exchanged(_projection(2, "up")), _layer(2, "mlp.up_proj"), ("code|permut|order|half|column",), slow=True),
    Fault("zeroed, int4", EXAONE_INT4, weights.zeroed(f"{_projection(0, 'k')}.scales"), _layer(0, "self_attn.k_proj"), ("zero",), slow=True),
]
HEADS = [
    Fault("mask ignored, classes", QWEN_CLASSES_STANDARD, attention.mask_ignored, ("model", *_layer(0, "self_attn")), ("mask|padding",), shows=frozenset({LEFT})),
    Fault("pools the first token", QWEN_CLASSES, heads.pools_the_first, ("score", "model", ""), ("first|token|pool",)),
    Fault("pools the padding", QWEN_CLASSES, heads.pools_the_padding, ("score", "model", ""), ("padding|pool",), shows=frozenset({BATCH})),
    Fault("labels in another order", QWEN_CLASSES, heads.labels_in_another_order, ("score", ""), ("label",), shows=frozenset()),
    Fault("rows of score", QWEN_CLASSES, weights.rewritten("score.weight", lambda w: w[[1, 2, 0]]), ("score",), ("row|permut|order|label",), slow=True),
    Fault("bias of score zero", QWEN_TAGS, weights.zeroed("score.bias"), ("score",), ("bias", "zero")),
    Fault("start and end exchanged", EXAONE_ANSWERS, heads.start_and_end_exchanged, ("qa_outputs", ""), ("start", "end")),
    Fault("final norm skipped, states", QWEN_STATES, layers.norm_skipped("norm"), ("norm",), ("norm", "skip|missing|not")),
]  # fmt: skip

FAULTS = [*WINDOWS, *ROPE, *ATTENTION, *NORMS, *STRUCTURE, *WEIGHTS, *QUANTIZED, *HEADS]
