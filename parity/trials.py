"""The ways in which an artifact is run: each a trial over passages of text, which the source reads as well."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..artifact import Manifest
from ..models.config import ModelConfig
from ..runtime.batching import pad, run_batches
from ..runtime.decoder import open_decoder, rows_together
from ..runtime.session import Session
from .drive import Graph
from .source import Passage
from .texts import Tokens, stretch

Floats = NDArray[np.float32]
Rows = Iterator[tuple[int, int, Floats]]
"""(passage, first position, the artifact's outputs from there on)"""

TAIL = 8
"""Positions of a long prompt whose logits are compared."""
BLOCK = 128
"""Positions whose logits are compared at once: 78 MB on either side, for a vocabulary of 150,000."""
ACROSS = 12
"""Tokens decoded around the edge of a window."""


@dataclass(frozen=True)
class Trial:
    """``run`` gives the artifact's outputs; ``may_refuse`` where a clear refusal is as good as the right answer."""

    name: str
    what: str
    passages: tuple[Passage, ...]
    run: Callable[[Session], Rows]
    may_refuse: bool = False


OUTPUTS = {
    "text-generation": ("logits",),
    "feature-extraction": ("last_hidden_state",),
    "text-classification": ("logits",),
    "token-classification": ("logits",),
    "question-answering": ("start_logits", "end_logits"),
}


def whole(tokens: Tokens) -> Passage:
    return Passage(tokens, (tokens.size,))


def stepwise(tokens: Tokens, prompt: int) -> Passage:
    return Passage(tokens, (prompt, *(1,) * (tokens.size - prompt)))


def blocks(rows: Rows) -> Rows:
    """The same outputs in blocks of up to ``BLOCK`` positions: the source reads its whole table for each.

    What has been given is let go before the next outputs are made, since the logits of a prompt are large.
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
    for index, pieces in held.items():
        yield index, begun[index], _joined(pieces)


def _joined(pieces: list[Floats]) -> Floats:
    return np.concatenate(pieces) if len(pieces) > 1 else pieces[0]


def edges(config: ModelConfig) -> dict[int, str]:
    """Lengths at which a layer begins to behave differently, and why."""
    found = {window: f"sliding window of {window:,}" for window in config.layer_windows if window is not None}
    if config.rope.length_dependent:
        rope = config.rope
        length = rope.max_position_embeddings if rope.type == "dynamic" else rope.original_max_position_embeddings
        found[length] = f"RoPE of type {rope.type} changes at {length:,}"
    return found


def generation_trials(
    config: ModelConfig, windows: list[Tokens], tokens: Tokens, steps: int, longest: int
) -> tuple[list[Trial], list[str]]:
    """The trials of a causal LM, and what is not tried because it takes more than ``longest`` tokens."""
    first, last = windows[0], windows[-1]
    size = first.size
    half = max(1, size // 2)
    trials = [
        Trial("prompt", "whole windows of text, the logits of every position", *_prompts(windows)),
        Trial(
            "decode",
            f"{half} tokens prefilled, {min(steps, size - half)} decoded one by one through the cache",
            *_decoded([first[: half + steps]], [half]),
        ),
        Trial("chunks", "a window in pieces of unequal length behind each other", *_chunks(last)),
        Trial(
            "batch",
            "three prompts of unequal length decoded together",
            *_decoded([w[: n + ACROSS] for w, n in zip(_three(windows), _unequal(size), strict=True)], _unequal(size)),
        ),
    ]
    padded = [w[:n] for w, n in zip(_three(windows), _unequal(size), strict=True)]
    trials += [
        Trial("padded-right", "a batch padded on the right, in one call of the graph", *_padded(padded, left=False)),
        Trial(
            "padded-left",
            "the same padded on the left: right, or refused",
            *_padded(padded, left=True),
            may_refuse=True,
        ),
    ]
    left_out = []
    for length, why in sorted(edges(config).items()):
        beyond = length + ACROSS
        if beyond > min(longest, config.context_length):
            limit = "--max-length" if longest < config.context_length else "the context"
            left_out.append(
                f"{why}: {beyond:,} tokens are more than {limit} of {min(longest, config.context_length):,}"
            )
            continue
        text = stretch(tokens, beyond)
        prompt = max(1, length - ACROSS // 2)
        trials.append(Trial(f"edge-{length}-decode", f"{why}: decoding across it", *_decoded([text], [prompt])))
        lengths = [n for n in (length - 1, length, length + 1, beyond) if n > 0]
        trials.append(
            Trial(f"edge-{length}-prompt", f"{why}: prompts below, at and above it", *_tails(tokens, lengths))
        )
    return trials, left_out


def head_trials(
    config: ModelConfig, manifest: Manifest, windows: list[Tokens], tokens: Tokens, longest: int
) -> tuple[list[Trial], list[str]]:
    """The trials of a task without generation: texts alone, and in padded batches."""
    size = windows[0].size
    texts = [w[: max(1, size // 4 + 5 * i % size)] for i, w in enumerate(windows)] + [
        w[:n] for w in windows for n in (3,)
    ]
    texts = [t for t in texts if t.size]
    trials = [Trial("alone", "each text by itself", *_alone(texts, manifest))]
    if manifest.task != "text-classification" or config.pad_token_id is not None:
        trials += [
            Trial("batch", "batches padded on the right, as the runtime makes them", *_batched(texts, manifest)),
            Trial(
                "padded-left",
                "a batch padded on the left: right, or refused",
                *_left(texts[:4], manifest),
                may_refuse=True,
            ),
        ]
    left_out = []
    for length, why in sorted(edges(config).items()):
        beyond = length + ACROSS
        if beyond > min(longest, config.context_length):
            left_out.append(f"{why}: {beyond:,} tokens are more than {min(longest, config.context_length):,}")
            continue
        lengths = [n for n in (length - 1, length, length + 1, beyond) if n > 0]
        many = [stretch(tokens, n) for n in lengths]
        trials.append(Trial(f"edge-{length}", f"{why}: texts below, at and above it", *_alone(many, manifest)))
    return trials, left_out


def _three(windows: list[Tokens]) -> list[Tokens]:
    return [windows[i % len(windows)] for i in range(3)]


def _unequal(size: int) -> list[int]:
    """Three lengths of prompts that leave room for some steps."""
    return [max(1, size // 3), max(1, size // 8), max(1, size // 2)]


Parts = tuple[tuple[Passage, ...], Callable[[Session], Rows]]


def _prompts(windows: list[Tokens]) -> Parts:
    passages = tuple(whole(w) for w in windows)

    def run(session: Session) -> Rows:
        for index, passage in enumerate(passages):
            yield index, 0, _call(session, passage.tokens)[0]

    return passages, run


def _tails(tokens: Tokens, lengths: list[int]) -> Parts:
    passages = tuple(whole(stretch(tokens, n)) for n in lengths)

    def run(session: Session) -> Rows:
        for index, passage in enumerate(passages):
            keep = min(TAIL, passage.tokens.size)
            yield index, passage.tokens.size - keep, _call(session, passage.tokens, keep)[0]

    return passages, run


def _chunks(tokens: Tokens) -> Parts:
    cuts = sorted({0, tokens.size // 4, tokens.size // 4 + 1, tokens.size // 2, tokens.size})
    pieces = tuple(np.diff(cuts).tolist())
    passage = Passage(tokens, pieces)

    def run(session: Session) -> Rows:
        graph, start = Graph(session, ("logits",)), 0
        for length in pieces:
            end = start + length
            (logits,) = graph(tokens[None, start:end], np.ones((1, end), dtype=np.int64))
            yield 0, start, logits[0]
            start = end

    return (passage,), run


def _decoded(texts: list[Tokens], prompts: list[int]) -> Parts:
    passages = tuple(stepwise(t, p) for t, p in zip(texts, prompts, strict=True))

    def run(session: Session) -> Rows:
        together = rows_together(session, len(passages))
        for start in range(0, len(passages), together):
            yield from _decode(session, range(start, min(start + together, len(passages))))

    def _decode(session: Session, members: range) -> Rows:
        limit = max(passages[i].tokens.size for i in members)
        decoder = open_decoder(session, len(members), max(prompts[i] for i in members), limit)
        for row, i in enumerate(members):
            yield i, prompts[i] - 1, decoder.prefill(row, texts[i][: prompts[i]])[None].copy()
        places = np.array([prompts[i] for i in members])
        sizes = np.array([texts[i].size for i in members])
        while (active := places < sizes).any():
            read = np.array([texts[i][min(p, texts[i].size - 1)] for i, p in zip(members, places, strict=True)])
            logits = decoder.step(read, active)
            for row in np.flatnonzero(active).tolist():
                yield members[row], int(places[row]), logits[row : row + 1].copy()
            places = places + active

    return passages, run


def _padded(texts: list[Tokens], *, left: bool) -> Parts:
    passages = tuple(whole(t) for t in texts)

    def run(session: Session) -> Rows:
        tokens, mask = pad_side(texts, 0, left=left)
        (logits,) = Graph(session, ("logits",))(tokens, mask)
        for index, text in enumerate(texts):
            first = tokens.shape[1] - text.size if left else 0
            yield index, 0, logits[index, first : first + text.size]

    return passages, run


def _alone(texts: list[Tokens], manifest: Manifest) -> Parts:
    passages = tuple(whole(t) for t in texts)

    def run(session: Session) -> Rows:
        for index, passage in enumerate(passages):
            found = [output[0] for output in _call_outputs(session, passage.tokens)]
            yield _head_rows(manifest, index, found, passage.tokens.size)

    return passages, run


def _batched(texts: list[Tokens], manifest: Manifest) -> Parts:
    passages = tuple(whole(t) for t in texts)

    def run(session: Session) -> Rows:
        rows = [t.tolist() for t in texts]
        for index, found in run_batches(session, rows, OUTPUTS[manifest.task], batch_size=4):
            yield _head_rows(manifest, index, found, texts[index].size)

    return passages, run


def _left(texts: list[Tokens], manifest: Manifest) -> Parts:
    passages = tuple(whole(t) for t in texts)

    def run(session: Session) -> Rows:
        tokens, mask = pad_side(texts, manifest.model.pad_token_id or 0, left=True)
        outputs = Graph(session, OUTPUTS[manifest.task])(tokens, mask)
        for index, text in enumerate(texts):
            first = tokens.shape[1] - text.size
            found = [o[index] if manifest.task == "text-classification" else o[index, first:] for o in outputs]
            yield _head_rows(manifest, index, found, text.size)

    return passages, run


def _head_rows(manifest: Manifest, index: int, found: list[Floats], size: int) -> tuple[int, int, Floats]:
    """Rows as ``Source.outputs`` gives them."""
    if manifest.task == "text-classification":
        return index, 0, found[0][None]
    if manifest.task == "question-answering":
        return index, 0, np.stack([output[:size] for output in found])
    return index, 0, found[0][:size]


def _call(session: Session, tokens: Tokens, keep: int = 0) -> Floats:
    (logits,) = Graph(session, ("logits",))(tokens[None], np.ones((1, tokens.size), dtype=np.int64), keep)
    return logits


def _call_outputs(session: Session, tokens: Tokens) -> list[Floats]:
    outputs = OUTPUTS[session.manifest.task]
    return Graph(session, outputs)(tokens[None], np.ones((1, tokens.size), dtype=np.int64))


def pad_side(texts: list[Tokens], pad_token_id: int, *, left: bool) -> tuple[Tokens, Tokens]:
    """Token ids and mask, int64 [B, S], padded on one side."""
    tokens, mask = pad([text.tolist() for text in texts], pad_token_id)
    if left:
        for row, text in enumerate(texts):
            tokens[row], mask[row] = np.roll(tokens[row], -text.size), np.roll(mask[row], -text.size)
    return tokens, mask
