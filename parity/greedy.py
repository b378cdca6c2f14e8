"""Greedy continuations: how far the source would have gone the artifact's way.

The artifact generates; the source reads what it generated in one pass. As long as the source's likeliest token is the
one that the artifact took, its own greedy continuation is the same, so that the first difference is where they part.
"""

from dataclasses import dataclass

import numpy as np

from ..runtime.decoder import open_decoder
from ..runtime.session import Session
from ..runtime.tokenizer import Tokenizer
from .result import Continuation
from .source import Passage, Source
from .texts import Tokens
from .trials import stepwise

PROMPT = 24
"""Tokens of a prompt."""


@dataclass(frozen=True, eq=False)
class Run:
    """A prompt and what the artifact made of it, as one passage."""

    prompt: int
    passage: Passage


def greedy(session: Session, texts: list[Tokens], steps: int) -> list[Run]:
    """The beginning of each text continued by ``steps`` tokens, or to the end of the context."""
    runs = []
    for text in texts:
        prompt = text[: min(PROMPT, max(1, text.size // 2))]
        count = min(steps, session.manifest.model.context_length - prompt.size)
        decoder = open_decoder(session, 1, prompt.size, prompt.size + count)
        tokens = [int(decoder.prefill(0, prompt).argmax())]
        while len(tokens) < count:
            tokens.append(int(decoder.step(np.array([tokens[-1]]), np.array([True]))[0].argmax()))
        runs.append(Run(prompt.size, stepwise(np.concatenate([prompt, np.array(tokens, dtype=np.int64)]), prompt.size)))
    return runs


def continuations(
    runs: list[Run], model: Source, noise: float, tokenizer: Tokenizer | None
) -> tuple[Continuation, ...]:
    """What the source says of each run; it must have read their passages.

    Args:
        noise: how undecided the source may be for a difference to count as a near tie, in units of the logits' spread.
    """
    found = []
    for run in runs:
        made = run.passage.tokens[run.prompt :]
        logits = model.outputs(run.passage, run.prompt - 1, made.size)
        differs = np.flatnonzero(logits.argmax(-1) != made)
        agreed, near = made.size, False
        if differs.size:
            agreed = int(differs[0])
            row = logits[agreed]
            near = bool(row.max() - row[made[agreed]] <= noise * row.std())
        prompt, text = (
            (tokenizer.decode(part.tolist()) for part in (run.passage.tokens[: run.prompt], made))
            if tokenizer is not None
            else (" ".join(map(str, part)) for part in (run.passage.tokens[: run.prompt], made))
        )
        found.append(Continuation(prompt, text, made.size, agreed, near))
    return tuple(found)
