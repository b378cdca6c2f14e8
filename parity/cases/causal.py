"""The cases of a causal LM: prompts, decoding, chunks, batches, padding, and every edge of its attention."""

import numpy as np

from ...contract import LOGITS
from ...models.config import ModelConfig
from ...runtime.decoding.decoder import open_decoder
from ...runtime.engine.session import Session
from .case import ACROSS, Case, Floats, Parts, Rows, around, edge_cases, pad_side, stepwise, whole
from .graph_calls import GraphCalls
from .source_model import Passage
from .texts import Tokens

TAIL = 8
"""Positions of a long prompt whose logits are compared."""
BATCH_STEPS = 12


def generation_cases(
    config: ModelConfig, windows: list[Tokens], tokens: Tokens, steps: int, longest: int
) -> tuple[list[Case], list[str]]:
    """Return the cases, and what is left out because it needs more than ``longest`` tokens."""
    first, last = windows[0], windows[-1]
    size = first.size
    half = max(1, size // 2)
    three = [windows[i % len(windows)] for i in range(3)]
    lengths = [max(1, size // 3), max(1, size // 8), max(1, size // 2)]
    cases = [
        Case("prompt", "whole windows of text, the logits of every position", *_prompts(windows)),
        Case(
            "decode",
            f"{half} tokens prefilled, {min(steps, size - half)} decoded one by one through the cache",
            *_decoded([first[: half + steps]], [half]),
            decodes=True,
        ),
        Case("chunks", "a window in consecutive chunks of unequal length", *_chunks(last)),
        Case(
            "batch",
            "three prompts of unequal length decoded together",
            *_decoded([w[: n + BATCH_STEPS] for w, n in zip(three, lengths, strict=True)], lengths),
            decodes=True,
        ),
    ]
    padded = [w[:n] for w, n in zip(three, lengths, strict=True)]
    cases += [
        Case("padded-right", "a batch padded on the right, in one call of the graph", *_padded(padded, left=False)),
        Case(
            "padded-left",
            "the same padded on the left: right, or refused",
            *_padded(padded, left=True),
            may_refuse=True,
        ),
    ]

    def across(length: int, why: str) -> list[Case]:
        prompt = max(1, length - ACROSS // 2)
        texts = around(tokens, length)
        return [
            Case(f"edge-{length}-decode", f"{why}: decoding across it", *_decoded([texts[-1]], [prompt]), decodes=True),
            Case(f"edge-{length}-prompt", f"{why}: prompts below, at and above it", *_tails(texts)),
        ]

    more, left_out = edge_cases(config, longest, across)
    return cases + more, left_out


def _prompts(windows: list[Tokens]) -> Parts:
    passages = tuple(whole(w) for w in windows)

    def run(session: Session) -> Rows:
        for index, passage in enumerate(passages):
            yield index, 0, _call(session, passage.tokens)[0]

    return passages, run


def _tails(texts: list[Tokens]) -> Parts:
    passages = tuple(whole(text) for text in texts)

    def run(session: Session) -> Rows:
        for index, passage in enumerate(passages):
            keep = min(TAIL, passage.tokens.size)
            yield index, passage.tokens.size - keep, _call(session, passage.tokens, keep)[0]

    return passages, run


def _chunks(tokens: Tokens) -> Parts:
    cuts = sorted({0, tokens.size // 4, tokens.size // 4 + 1, tokens.size // 2, tokens.size})
    chunks = tuple(np.diff(cuts).tolist())
    passage = Passage(tokens, chunks)

    def run(session: Session) -> Rows:
        graph, start = GraphCalls(session, (LOGITS,)), 0
        for length in chunks:
            end = start + length
            (logits,) = graph(tokens[None, start:end], np.ones((1, end), dtype=np.int64))
            yield 0, start, logits[0]
            start = end

    return (passage,), run


def _decoded(texts: list[Tokens], prompts: list[int]) -> Parts:
    passages = tuple(stepwise(t, p) for t, p in zip(texts, prompts, strict=True))

    def run(session: Session) -> Rows:
        decoder = open_decoder(session, len(texts), max(prompts), max(passage.tokens.size for passage in passages))
        for row, text in enumerate(texts):
            yield row, prompts[row] - 1, decoder.prefill(row, text[: prompts[row]])[None].copy()
        places, sizes = np.array(prompts), np.array([text.size for text in texts])
        while (active := places < sizes).any():
            read = np.array([text[min(p, text.size - 1)] for text, p in zip(texts, places, strict=True)])
            logits = decoder.step(read, active)
            for row in np.flatnonzero(active).tolist():
                yield row, int(places[row]), logits[row : row + 1].copy()
            places = places + active

    return passages, run


def _padded(texts: list[Tokens], *, left: bool) -> Parts:
    passages = tuple(whole(t) for t in texts)

    def run(session: Session) -> Rows:
        tokens, mask = pad_side(texts, 0, left=left)
        (logits,) = GraphCalls(session, (LOGITS,))(tokens, mask)
        for index, text in enumerate(texts):
            first = tokens.shape[1] - text.size if left else 0
            yield index, 0, logits[index, first : first + text.size]

    return passages, run


def _call(session: Session, tokens: Tokens, keep: int = 0) -> Floats:
    (logits,) = GraphCalls(session, (LOGITS,))(tokens[None], np.ones((1, tokens.size), dtype=np.int64), keep)
    return logits
