"""Greedy continuations by the artifact, and the number of tokens that the source generates too.

The artifact generates; the source reads the result in one pass. As long as the source's most likely token is the
artifact's, its own greedy continuation is the same; the first difference is where they diverge.
"""

from dataclasses import dataclass

import numpy as np

from ...runtime.decoding.decoder import open_decoder
from ...runtime.engine.session import Session
from ...runtime.text.tokenizer import Tokenizer
from ..report.result import Continuation
from .case import stepwise
from .source_model import Passage, SourceModel
from .texts import Tokens

PROMPT = 24
"""Tokens of the first prompt; each further one has one more."""


@dataclass(frozen=True, eq=False)
class GreedyRun:
    """A prompt and the artifact's continuation, as one passage."""

    prompt: int
    passage: Passage


def greedy(session: Session, texts: list[Tokens], steps: int) -> list[GreedyRun]:
    """Continue the beginning of each text by ``steps`` tokens, or to the end of the context, in one batch."""
    prompts = [text[: min(PROMPT + index, max(1, text.size // 2))] for index, text in enumerate(texts)]
    longest = max(prompt.size for prompt in prompts)
    count = min(steps, session.manifest.model.context_length - longest)
    decoder = open_decoder(session, len(prompts), longest, longest + count)
    made = [[int(decoder.prefill(row, prompt).argmax()) for row, prompt in enumerate(prompts)]]
    while len(made) < count:
        logits = decoder.step(np.array(made[-1]), np.ones(len(prompts), dtype=bool))
        made.append(logits.argmax(-1).tolist())
    return [
        GreedyRun(prompt.size, stepwise(np.concatenate([prompt, tokens]), prompt.size))
        for prompt, tokens in zip(prompts, np.array(made, dtype=np.int64).T, strict=True)
    ]


def continuations(
    runs: list[GreedyRun], model: SourceModel, noise: float, tokenizer: Tokenizer | None
) -> tuple[Continuation, ...]:
    """Return the agreement of each run with the source, which must have read their passages.

    Args:
        noise: the largest preference of the source that counts as a near tie, in standard deviations of the logits.
    """

    def text(tokens: Tokens) -> str:
        return tokenizer.decode(tokens.tolist()) if tokenizer is not None else " ".join(map(str, tokens))

    found = []
    for run in runs:
        prompt, made = np.split(run.passage.tokens, [run.prompt])
        logits = model.outputs(run.passage, run.prompt - 1, made.size)
        likeliest = logits.argmax(-1)
        differs = np.flatnonzero(likeliest != made)
        agreed = int(differs[0]) if differs.size else made.size
        near, wanted = False, ""
        if agreed < made.size:
            row = logits[agreed]
            near = bool(row.max() - row[made[agreed]] <= noise * row.std())
            wanted = text(likeliest[agreed : agreed + 1])
        found.append(Continuation(text(prompt), text(made), made.size, agreed, near, text(made[:agreed]), wanted))
    return tuple(found)
