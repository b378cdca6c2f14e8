"""Faults in windows, RoPE, masks and caches."""

from .edits import attention as attention
from .fault import (
    BATCH,
    CHUNK,
    DECODE,
    EXAONE,
    EXAONE_LLAMA3,
    EXAONE_STANDARD,
    LEFT,
    PER_ROW,
    PROMPT,
    QWEN,
    QWEN_SLIDING,
    QWEN_STANDARD,
    QWEN_YARN,
    Fault,
    inside,
)

ROTARY = ("model.rotary_emb", *inside(0, "self_attn"))
"""The modules that a wrong table or frequency may be reported for: its own, or the first attention operator."""

WINDOWS = [
    Fault("window + 1", EXAONE, attention.window(7, 1), inside(1, "self_attn"), ("window", r"\b6\b", r"\b7\b")),
    Fault("window - 1", EXAONE, attention.window(5), inside(0, "self_attn"), ("window", r"\b6\b", r"\b5\b")),
    Fault("no window", EXAONE, attention.window(None, 2), inside(2, "self_attn"), ("window", r"\b6\b"), slow=True),
    Fault("window on a global layer", EXAONE, attention.window(6, 3), inside(3, "self_attn"), ("window", "global")),
    Fault(
        "Qwen2 window + 1", QWEN_SLIDING, attention.window(7), inside(2, "self_attn"), ("window", r"\b7\b"), slow=True
    ),
    Fault(
        "Qwen2 window - 1",
        QWEN_SLIDING,
        attention.window(5, 3),
        inside(3, "self_attn"),
        ("window", r"\b5\b"),
        slow=True,
    ),
    Fault(
        "window + 1 in a mask", EXAONE_STANDARD, attention.mask_window(7), inside(0, "self_attn"), ("window", r"\b7\b")
    ),
    Fault(
        "window - 1 in a mask",
        EXAONE_STANDARD,
        attention.mask_window(5),
        inside(0, "self_attn"),
        ("window", r"\b5\b"),
        slow=True,
    ),
]
ROPE = [
    Fault("RoPE on a global layer", EXAONE, attention.rotate(3), inside(3, "self_attn"), ("rope", "global|has none")),
    Fault(
        "RoPE on a global layer, standard",
        EXAONE_STANDARD,
        attention.rotate(3),
        inside(3, "self_attn"),
        ("rope", "global|has none"),
        slow=True,
    ),
    Fault("no RoPE", EXAONE, attention.no_rotation(1), inside(1, "self_attn"), ("rope",), slow=True),
    Fault("theta", QWEN, attention.plain_angles(1e6), ROTARY, ("rope", "theta", r"1e\+?0?6|1,?000,?000")),
    Fault("theta, standard", EXAONE_STANDARD, attention.plain_angles(5e5), ROTARY, ("rope", "theta"), slow=True),
    Fault("llama3 left out", EXAONE_LLAMA3, attention.plain_angles(1e4), ROTARY, ("rope", "llama3", "default")),
    Fault(
        "linear left out", QWEN_STANDARD, attention.plain_angles(1e4), ROTARY, ("rope", "linear", "default"), slow=True
    ),
    Fault("yarn left out", QWEN_YARN, attention.plain_angles(1e4), ROTARY, ("rope", "yarn", "default"), slow=True),
    Fault("cos and sin swapped", QWEN, attention.cos_and_sin_swapped, ROTARY, ("rope", "cos", "sin"), slow=True),
    Fault("interleaved pairs", QWEN, attention.interleaved, ROTARY, ("rope", "pairs|interleaved"), slow=True),
    Fault("a table half as long", QWEN, attention.short_table, ROTARY, ("rope",), shows=frozenset({PROMPT}), slow=True),
]
ATTENTION = [
    Fault("scale", EXAONE, attention.scale(2, 1 / 16), inside(2, "self_attn"), ("1/head_dim",)),
    Fault("key/value heads in turn", EXAONE, attention.wrong_groups(1), inside(1, "self_attn"), ("head",), slow=True),
    Fault(
        "future tokens seen",
        EXAONE_STANDARD,
        attention.sees_the_future,
        inside(0, "self_attn"),
        ("causal|future|later",),
        slow=True,
    ),
    Fault(
        "mask ignored",
        QWEN,
        attention.mask_ignored,
        ("model", *inside(0, "self_attn")),
        ("mask|padding",),
        shows=frozenset({BATCH}),
        slow=True,
    ),
    Fault(
        "mask ignored, standard",
        EXAONE_STANDARD,
        attention.mask_ignored,
        ("model", *inside(0, "self_attn")),
        ("mask|padding",),
        shows=frozenset({BATCH, LEFT}),
    ),
    Fault(
        "short at decode",
        EXAONE,
        attention.short_at_decode,
        ("model", *inside(0, "self_attn")),
        ("cache",),
        shows=frozenset({DECODE, BATCH}),
    ),
    Fault(
        "last cached token unseen",
        EXAONE_STANDARD,
        attention.last_cached_hidden,
        ("model", *inside(0, "self_attn")),
        ("cache",),
        shows=frozenset({DECODE, BATCH, LEFT}),
    ),
    Fault(
        "short after a cache",
        QWEN,
        attention.short_at_chunks,
        ("model", *inside(0, "self_attn")),
        ("cache",),
        shows=frozenset({CHUNK}),
        slow=True,
    ),
    Fault(
        "one position late after a cache",
        EXAONE_STANDARD,
        attention.late_after_cache,
        ROTARY,
        ("position",),
        shows=PER_ROW,
        slow=True,
    ),
    Fault(
        "keys and values of a cache swapped",
        EXAONE,
        attention.keys_and_values_swapped(2),
        inside(2, "self_attn"),
        ("cache",),
        shows=PER_ROW,
        slow=True,
    ),
    Fault(
        "caches of two layers swapped",
        EXAONE_STANDARD,
        attention.caches_swapped(1, 2),
        inside(1, "self_attn"),
        ("cache",),
        shows=PER_ROW,
        slow=True,
    ),
]
