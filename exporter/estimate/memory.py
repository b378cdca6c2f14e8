"""The peak of a quantization's memory: the largest of its phases, above what the process takes by itself."""

from ...models.weight_source import CHUNK_BYTES
from ..quantize.layers.sensitivity import HEAD_TOKENS, SAMPLED
from ..quantize.layers.stream import ROWS
from ..quantize.layers.vocabulary import ROWS_BYTES
from ..quantize.texts.generated import BATCH, needed_memory
from .work import Work

FLOAT = 4
FACTORED = 4
"""Matrices [K, K] that exist while a correction is fitted: two sums, the factor of one, and the copy of it that solves.
(Fewer do while a Hessian is factored.)"""

STREAMS = 2
"""The hidden states of the quantized and of the float layers, and a layer of each."""

KEPT = 1
"""Those that exist while a weight is solved: the factor."""

SOLVED = 7
"""Matrices [N, K] that exist while a weight is solved: columns, codes, errors of the grid, the dequantized weight."""

LIBRARIES = 1 << 27
"""What PyTorch's libraries take once they multiply: compiled kernels, and pieces that the allocator keeps."""

CHUNKS = 2
"""A chunk of rows as read, and those that wait to be written."""


def phases(work: Work) -> dict[str, int]:
    """Return the bytes that each phase takes at most."""
    found = {"weights": CHUNKS * _chunk(work, CHUNK_BYTES)}
    layer = FLOAT * max(layer.weights for layer in work.layers)
    acting = _activations(work)
    hidden = FLOAT * work.config.hidden_size
    if work.generated:
        found["text"] = needed_memory(work.config, min(BATCH, work.generated), work.length)
    if work.few_tokens:
        states = hidden * work.few_tokens * (work.config.num_hidden_layers + 3)
        found["sensitivity"] = LIBRARIES + states + max(layer + acting + _gradients(work), _head(work))
    if work.smoothing_tokens:
        widest = max(one.columns for layer in work.layers for one in layer.projections)
        inputs = FLOAT * work.smoothing_tokens * (work.config.hidden_size + 2 * widest)
        found["sensitivity"] = LIBRARIES + layer + acting + inputs
    if work.solves:
        kept = FLOAT * work.config.num_attention_heads * work.config.head_dim
        streams = STREAMS * (hidden + kept) * work.tokens
        solving = max(STREAMS * layer + max(acting, _solving(work)), _vocabulary(work))
        found["calibration"] = LIBRARIES + streams + solving
    return found


def _activations(work: Work) -> int:
    """Return what a few windows take inside a layer: scores of attention, and the MLP's hidden values."""
    tokens = ROWS * work.length
    scores = 2 * work.config.num_attention_heads * tokens * work.length
    widest = max(sum(one.rows * one.share for one in layer.projections) for layer in work.layers)
    return int(FLOAT * (scores + tokens * (widest + 4 * work.config.hidden_size)))


def _solving(work: Work) -> int:
    """Return what a Hessian and its factor take, or these and the weight that they solve."""
    projections = [one for layer in work.layers for one in layer.projections]
    return FLOAT * max(max(FACTORED * one.columns**2, KEPT * one.columns**2 + SOLVED * one.size) for one in projections)


def _vocabulary(work: Work) -> int:
    """Return what the embedding's Hessian takes, and the rows that are solved at once."""
    return max(
        (FLOAT * (FACTORED * columns**2 + SOLVED * _chunk(work, ROWS_BYTES) // 2) for _, columns in work.vocabulary),
        default=0,
    )


def _gradients(work: Work) -> int:
    """Return what the inputs and gradients of a layer's projections take, once as pieces and once joined."""
    tokens = work.few_tokens
    return int(
        FLOAT * tokens * max(sum(p.share * (p.columns + p.rows) for p in layer.projections) for layer in work.layers)
    )


def _head(work: Work) -> int:
    """Return what the probabilities of some positions take, what samples them, and a chunk of the LM head."""
    rows = min(HEAD_TOKENS, work.few_tokens) + 3 * SAMPLED
    return FLOAT * rows * work.config.vocab_size + 3 * _chunk(work, CHUNK_BYTES)


def _chunk(work: Work, most: int) -> int:
    """Return the bytes of a chunk of rows: of the largest weight, stored in 16 bits, or ``most``."""
    return min(most, 2 * max(one.size for one in work.decision.candidates))
