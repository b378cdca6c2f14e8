"""A case: one way of running the artifact, over passages of text that the source reads too."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...models.config import ModelConfig
from ...runtime.engine.session import Session
from ...runtime.tasks.padded import pad
from .source_model import Passage
from .texts import Tokens, stretch

Floats = NDArray[np.float32]
Rows = Iterator[tuple[int, int, Floats]]
"""(passage, first position, the artifact's outputs from there on)"""

BLOCK = 128
"""Positions whose logits are compared at once: 78 MB on either side, for a vocabulary of 150,000."""
ACROSS = 12
"""Number of tokens that a text continues beyond an edge."""


@dataclass(frozen=True)
class Case:
    """``run`` yields the artifact's outputs; ``may_refuse`` allows a clear error instead of them.

    ``decodes`` runs the session of generation, in which sliding layers may keep only their window.
    """

    name: str
    what: str
    passages: tuple[Passage, ...]
    run: Callable[[Session], Rows]
    may_refuse: bool = False
    decodes: bool = False


Parts = tuple[tuple[Passage, ...], Callable[[Session], Rows]]


def whole(tokens: Tokens) -> Passage:
    return Passage(tokens, (tokens.size,))


def stepwise(tokens: Tokens, prompt: int) -> Passage:
    return Passage(tokens, (prompt, *(1,) * (tokens.size - prompt)))


def blocks(rows: Rows) -> Rows:
    """Yield the same outputs in blocks of up to ``BLOCK`` positions, since the source reads its whole LM head for each.

    Yielded outputs are released before the next are computed, since the logits of a prompt are large.
    """
    held: dict[int, list[Floats]] = {}
    begun: dict[int, int] = {}
    for index, first, found in rows:
        for start in range(0, len(found), BLOCK):
            size = sum(map(len, held.get(index, [])))
            count = min(BLOCK, len(found) - start)
            if size and (size + count > BLOCK or begun[index] + size != first + start):
                yield index, begun[index], _joined(held.pop(index))
                size = 0
            begun[index] = first + start - size
            if size + count == BLOCK:
                yield index, begun[index], _joined([*held.pop(index, []), found[start : start + count]])
            else:
                held.setdefault(index, []).append(found[start : start + count].copy())
        del found
    for index, parts in held.items():
        yield index, begun[index], _joined(parts)


def _joined(parts: list[Floats]) -> Floats:
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def edges(config: ModelConfig) -> dict[int, str]:
    """Return the lengths at which a layer's behaviour changes, and why."""
    found = {window: f"sliding window of {window:,}" for window in config.layer_windows if window is not None}
    if config.rope.length_dependent:
        rope = config.rope
        length = rope.max_position_embeddings if rope.type == "dynamic" else rope.original_max_position_embeddings
        found[length] = f"RoPE of type {rope.type} changes at {length:,}"
    return found


def edge_cases(
    config: ModelConfig, longest: int, make: Callable[[int, str], Iterable[Case]]
) -> tuple[list[Case], list[str]]:
    """Return the cases that ``make`` returns for each edge and its reason, and what is left out as too long."""
    cases: list[Case] = []
    left_out = []
    most = min(longest, config.context_length)
    for length, why in sorted(edges(config).items()):
        if length + ACROSS <= most:
            cases += make(length, why)
        else:
            limit = "--max-length" if longest < config.context_length else "the context"
            left_out.append(f"{why}: {length + ACROSS:,} tokens are more than {limit} of {most:,}")
    return cases, left_out


def around(tokens: Tokens, length: int) -> list[Tokens]:
    """Return texts below, at and above an edge."""
    return [stretch(tokens, n) for n in (length - 1, length, length + 1, length + ACROSS) if n > 0]


def pad_side(texts: list[Tokens], pad_token_id: int, *, left: bool) -> tuple[Tokens, Tokens]:
    """Return token ids and mask, int64 [B, S], padded on one side."""
    tokens, mask = pad([text.tolist() for text in texts], pad_token_id)
    if left:
        for row, text in enumerate(texts):
            tokens[row], mask[row] = np.roll(tokens[row], -text.size), np.roll(mask[row], -text.size)
    return tokens, mask
