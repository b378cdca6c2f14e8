"""How a prompt is divided for prefill."""

from ...artifact import ModelFacts

# Activations (an MLP's are the widest) stay small however long the prompt, and matrix multiplications are as fast as
# they get: 2,048 tokens of an int4 0.5B take a sixth longer in chunks of 128, and as long in chunks of 512 or 2,048.
PREFILL_CHUNK = 1024


def prefill_chunks(facts: ModelFacts, length: int, keep: int = 1) -> list[tuple[int, int, int]]:
    """Divide ``length`` tokens into chunks [start, end), read in order, with the logits to compute in each.

    A graph computes the logits of at least one position; asked for 0 it would compute all.
    """
    size = length if facts.length_dependent_rope else PREFILL_CHUNK
    chunks = []
    for start in range(0, length, size):
        end = min(start + size, length)
        chunks.append((start, end, max(1, end - max(start, length - keep))))
    return chunks
