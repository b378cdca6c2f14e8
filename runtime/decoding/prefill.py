"""How a prompt is divided for prefill.

intaglio's kernels read a sequence of at least ``LONG_SEQUENCE`` tokens in one way and a shorter one in another; their
numbers differ in rounding. Within each way, a token's numbers do not depend on how many are read with it, and a part of
a long prompt can be read as the whole would be if it has ``LEAST_PART`` tokens. So a prompt gives the same numbers
however it is divided.

Where other kernels compute, and something rounds coarsely (``pass_dependence``), a token's numbers do depend on its
pass. Then every prompt is divided at the same positions, whoever reads it.
"""

from itertools import pairwise

from ...artifact import ModelFacts
from ..engine.rounding import pass_dependence
from ..engine.session import Session
from ..kernels import LEAST_PART, LONG_SEQUENCE

# Activations (an MLP's are the widest) stay small however long the prompt, and matrix multiplications are as fast as
# they get: 2,048 tokens of an int4 0.5B take a sixth longer in chunks of 128, and as long in chunks of 512 or 2,048.
PREFILL_CHUNK = 1024

DEPENDENT_CHUNK = 256
"""Where prompts are divided if a token's numbers depend on its pass: long enough to be fast, and short enough to let
others go on in between."""


def prefill_step(session: Session) -> int | None:
    """Return the number at whose multiples the session's prompts are divided; None where they may be anywhere.

    On a GPU, where no session is free of dependence, the passes of a batch depend on the other sequences anyway.
    """
    fixed = session.device == "cpu" and pass_dependence(session) is not None
    return DEPENDENT_CHUNK if fixed and not session.manifest.model.length_dependent_rope else None


def prefill_chunks(
    facts: ModelFacts, length: int, keep: int = 1, past: int = 0, step: int | None = None
) -> list[tuple[int, int, int]]:
    """Divide ``length`` tokens into chunks [start, end), read in order, with the logits to compute in each.

    The chunks are about equal, so that none is short. A graph computes the logits of at least one position; asked for
    0 it would compute all.

    Args:
        past: how many tokens are before them.
        step: that of ``prefill_step``.
    """
    if step is not None:
        ends = [0, *range(step - past % step, length, step), length]
    else:
        count = 1 if facts.length_dependent_rope else -(-length // PREFILL_CHUNK)
        ends = [length * number // count for number in range(count + 1)]
    return [(start, end, max(1, end - max(start, length - keep))) for start, end in pairwise(ends)]


def next_chunk(facts: ModelFacts, prompt: int, left: int, wanted: int, step: int | None = None) -> int:
    """Return how many of a prompt's ``left`` tokens to read next, about ``wanted``, where others wait meanwhile.

    Args:
        prompt: the tokens of the whole prompt.
        step: as in ``prefill_chunks``.
    """
    if step is not None:
        return min(left, step - (prompt - left) % step)
    size = max(wanted, LEAST_PART)
    whole = facts.length_dependent_rope or prompt < LONG_SEQUENCE or left - size < LEAST_PART
    return left if whole else size
