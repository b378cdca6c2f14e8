"""The cases of tasks without generation: single texts, padded batches, and every edge of attention."""

import numpy as np

from ...artifact import Manifest
from ...contract import OUTPUTS
from ...models.config import ModelConfig
from ...runtime.engine.session import Session
from ...runtime.tasks.padded import run_batches
from .case import Case, Floats, Parts, Rows, around, edge_cases, pad_side, whole
from .graph_calls import GraphCalls
from .texts import Tokens

SHORT = 3
"""Tokens of the shortest texts."""


def head_cases(
    config: ModelConfig, manifest: Manifest, windows: list[Tokens], tokens: Tokens, longest: int
) -> tuple[list[Case], list[str]]:
    """Return the cases, and what is left out because it needs more than ``longest`` tokens."""
    texts = [window[: max(1, window.size // (4 + i))] for i, window in enumerate(windows)]
    texts += [window[:SHORT] for window in windows]
    cases = [Case("alone", "each text by itself", *_alone(texts, manifest))]
    if manifest.task != "text-classification" or config.pad_token_id is not None:
        cases += [
            Case("batch", "batches padded on the right, as the runtime makes them", *_batched(texts, manifest)),
            Case(
                "padded-left",
                "a batch padded on the left: right, or refused",
                *_left(texts[:4], manifest),
                may_refuse=True,
            ),
        ]

    def across(length: int, why: str) -> list[Case]:
        texts = around(tokens, length)
        return [Case(f"edge-{length}", f"{why}: texts below, at and above it", *_alone(texts, manifest))]

    more, left_out = edge_cases(config, longest, across)
    return cases + more, left_out


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
        outputs = GraphCalls(session, OUTPUTS[manifest.task])(tokens, mask)
        for index, text in enumerate(texts):
            first = tokens.shape[1] - text.size
            found = [o[index] if manifest.task == "text-classification" else o[index, first:] for o in outputs]
            yield _head_rows(manifest, index, found, text.size)

    return passages, run


def _head_rows(manifest: Manifest, index: int, found: list[Floats], size: int) -> tuple[int, int, Floats]:
    """Return the passage's index, the first position, and rows in the form of ``SourceModel.outputs``."""
    if manifest.task == "text-classification":
        return index, 0, found[0][None]
    if manifest.task == "question-answering":
        return index, 0, np.stack([output[:size] for output in found])
    return index, 0, found[0][:size]


def _call_outputs(session: Session, tokens: Tokens) -> list[Floats]:
    outputs = OUTPUTS[session.manifest.task]
    return GraphCalls(session, outputs)(tokens[None], np.ones((1, tokens.size), dtype=np.int64))
