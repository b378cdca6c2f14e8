"""How a prompt is divided for prefill.

intaglio's kernels read a sequence of at least ``LEAST_CHUNK`` tokens in one way and a shorter one in another; their
numbers differ in rounding. Within each way, a token's numbers do not depend on how many are read with it. So a prompt
gives the same numbers however it is divided, as long as no chunk of a longer prompt is shorter than that.
"""

from itertools import pairwise

from ...artifact import ModelFacts

# Activations (an MLP's are the widest) stay small however long the prompt, and matrix multiplications are as fast as
# they get: 2,048 tokens of an int4 0.5B take a sixth longer in chunks of 128, and as long in chunks of 512 or 2,048.
PREFILL_CHUNK = 1024

LEAST_CHUNK = 64
"""REPACK_ROWS in runtime/kernels/native/matmul/repacked.h."""


def prefill_chunks(facts: ModelFacts, length: int, keep: int = 1) -> list[tuple[int, int, int]]:
    """Divide ``length`` tokens into chunks [start, end), read in order, with the logits to compute in each.

    The chunks are about equal, so that none is short. A graph computes the logits of at least one position; asked for
    0 it would compute all.
    """
    count = 1 if facts.length_dependent_rope else -(-length // PREFILL_CHUNK)
    ends = [length * number // count for number in range(count + 1)]
    return [(start, end, max(1, end - max(start, length - keep))) for start, end in pairwise(ends)]


def next_chunk(facts: ModelFacts, left: int, wanted: int) -> int:
    """Return how many of a prompt's ``left`` tokens to read next, about ``wanted``, where others wait meanwhile."""
    size = max(wanted, LEAST_CHUNK)
    return left if facts.length_dependent_rope or left - size < LEAST_CHUNK else size
