"""The outputs of an artifact on ONNX Runtime alone, by way of running, to see where a fault makes a difference."""

from pathlib import Path

import numpy as np
import torch
from intaglio.artifact import Manifest, read_manifest
from intaglio.tests.exporter import drive
from numpy.typing import NDArray

from .fault import BATCH, CHUNK, DECODE, LEFT, PROMPT

LENGTHS = (17, 5, 6)
STEPS = 4


def outputs_by_way(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Return the outputs at every position that is not padding, by way of running (see ``fault.py``)."""
    manifest = read_manifest(folder)
    ways = _causal(folder, manifest) if manifest.task == "text-generation" else _head(folder, manifest)
    return {name: np.concatenate([part.ravel() for part in parts]) for name, parts in ways.items()}


def differing(one: dict[str, NDArray[np.float32]], other: dict[str, NDArray[np.float32]], by: float) -> set[str]:
    """Return the ways of running in which the largest difference exceeds ``by``, or an output is not finite."""
    assert one.keys() == other.keys()
    return {name for name in one if not np.abs(one[name] - other[name]).max() <= by}


def _causal(folder: Path, manifest: Manifest) -> dict[str, list[NDArray[np.float32]]]:
    vocabulary = manifest.model.vocab_size
    tokens = drive.ids(vocabulary, 100)
    rows = [drive.ids(vocabulary, 30, seed) for seed in range(3)]
    session = drive.session(folder)

    def run(*lengths: int) -> list[NDArray[np.float32]]:
        graph, start, found = drive.CachedGraph(folder, session), 0, []
        for length in lengths:
            mask = torch.ones(1, start + length, dtype=torch.int64)
            found.append(graph(tokens[:, start : start + length], mask).numpy())
            start += length
        return found

    ways = {
        PROMPT: run(100),
        DECODE: run(12, *[1] * STEPS),
        CHUNK: run(12, 7),
        BATCH: _batch(drive.CachedGraph(folder, session), rows, left=False),
    }
    return ways | (
        {LEFT: _batch(drive.CachedGraph(folder, session), rows, left=True)} if manifest.target == "standard" else {}
    )


def _batch(graph: drive.CachedGraph, rows: list[torch.Tensor], *, left: bool) -> list[NDArray[np.float32]]:
    ids, mask, spans = _padded(rows, left=left)
    logits = graph(ids, mask)
    found = [logits[row, span].numpy() for row, span in enumerate(spans)]
    for step in range(STEPS):
        new = torch.cat([r[:, n + step : n + step + 1] for r, n in zip(rows, LENGTHS, strict=True)])
        mask = torch.cat([mask, torch.ones(len(rows), 1, dtype=torch.int64)], 1)
        found.append(graph(new, mask).numpy())
    return found


def _padded(rows: list[torch.Tensor], *, left: bool) -> tuple[torch.Tensor, torch.Tensor, list[slice]]:
    longest = max(LENGTHS)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    spans = [slice(longest - n, longest) if left else slice(0, n) for n in LENGTHS]
    for row, (tokens, span, count) in enumerate(zip(rows, spans, LENGTHS, strict=True)):
        ids[row, span], mask[row, span] = tokens[0, :count], 1
    return ids, mask, spans


def _head(folder: Path, manifest: Manifest) -> dict[str, list[NDArray[np.float32]]]:
    session = drive.session(folder)
    names = sorted(value.name for value in session.get_outputs())
    rows = [drive.ids(manifest.model.vocab_size, 30, seed) for seed in range(3)]

    def run(ids: torch.Tensor, mask: torch.Tensor, spans: list[slice]) -> list[NDArray[np.float32]]:
        feeds = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
        outputs: list[NDArray[np.float32]] = [np.asarray(output) for output in session.run(names, feeds)]
        whole = manifest.task == "text-classification"
        return [output[row] if whole else output[row, span] for output in outputs for row, span in enumerate(spans)]

    ways = {
        PROMPT: run(rows[0], torch.ones_like(rows[0]), [slice(None)]),
        BATCH: run(*_padded(rows, left=False)),
    }
    return ways | ({LEFT: run(*_padded(rows, left=True))} if manifest.target == "standard" else {})
