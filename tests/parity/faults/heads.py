"""Faults of the tasks other than text generation."""

from .edits import attention as attention
from .edits import heads as heads
from .edits import layers as layers
from .edits import weights as weights
from .fault import BATCH, LEFT, QWEN_ANSWERS, QWEN_CLASSES, QWEN_CLASSES_STANDARD, QWEN_STATES, QWEN_TAGS, Fault, inside

HEADS = [
    Fault(
        "mask ignored, classes",
        QWEN_CLASSES_STANDARD,
        attention.mask_ignored,
        ("model", *inside(0, "self_attn")),
        ("mask|padding",),
        shows=frozenset({LEFT}),
    ),
    Fault(
        "pools the first token",
        QWEN_CLASSES_STANDARD,
        heads.pools_the_first,
        ("score",),
        ("first|token|pool",),
    ),
    Fault(
        "pools the padding",
        QWEN_CLASSES_STANDARD,
        heads.pools_the_padding,
        ("score",),
        ("padding|pool",),
        shows=frozenset({BATCH}),
        slow=True,
    ),
    Fault(
        "labels in another order",
        QWEN_CLASSES_STANDARD,
        heads.labels_in_another_order,
        ("score",),
        ("label",),
        shows=frozenset(),
    ),
    Fault(
        "rows of score",
        QWEN_CLASSES,
        weights.rewritten("score.weight", lambda w: w[[1, 2, 0]]),
        ("score",),
        ("row|permut|order|label",),
        slow=True,
    ),
    Fault("bias of score zero", QWEN_TAGS, weights.zeroed("score.bias"), ("score",), ("bias", "zero"), slow=True),
    Fault("start and end swapped", QWEN_ANSWERS, heads.start_and_end_swapped, ("qa_outputs",), ("start", "end")),
    Fault(
        "final norm skipped, states",
        QWEN_STATES,
        layers.norm_skipped("norm"),
        ("norm",),
        ("norm", "skip|missing|not"),
        slow=True,
    ),
]
