"""How a prompt is cut for prefill."""

from ...artifact import ModelFacts

# Activations (an MLP's are the widest) stay small however long the prompt, and the matrix products are as fast as they
# get: 2,048 tokens of an int4 0.5B take a sixth longer in pieces of 128, and as long in pieces of 512 or 2,048.
PREFILL_CHUNK = 1024


def chunks(facts: ModelFacts, length: int, keep: int = 1) -> list[tuple[int, int, int]]:
    """The pieces [start, end) of so many tokens that are read one after the other, and the logits to ask of each.

    A graph gives the logits of at least one position; asked for 0 it would give all.
    """
    size = length if facts.length_dependent_rope else PREFILL_CHUNK
    pieces = []
    for start in range(0, length, size):
        end = min(start + size, length)
        pieces.append((start, end, max(1, end - max(start, length - keep))))
    return pieces
