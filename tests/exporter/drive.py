"""An artifact's graph on ONNX Runtime and the native definition, run side by side call by call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from intaglio.artifact import read_manifest
from intaglio.exporter.weights import Recipe
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.ops import KeyValue
from intaglio.tests.files.artifact_files import graph_of
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.generic]


def streams(recipe: Recipe, checkpoint: Checkpoint) -> dict[str, NDArray[Any]]:
    """Return each stream of a recipe as one array."""
    pieces: dict[str, list[Tensor]] = {}
    recipe.write(checkpoint, lambda key, piece: pieces.setdefault(key, []).append(piece.contiguous()))
    return {key: torch.cat(found).numpy() for key, found in pieces.items()}


def session(
    folder: Path, level: ort.GraphOptimizationLevel = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = level
    return ort.InferenceSession(graph_of(folder), options, providers=["CPUExecutionProvider"])


def run(
    session: ort.InferenceSession, feeds: Mapping[str, Array], outputs: list[str] | None = None
) -> list[NDArray[Any]]:
    """Return the session's outputs, which are tensors in every graph of an export."""
    found: Any = session.run(outputs, dict(feeds))
    return list(found)


class CachedGraph:
    """A causal LM's graph with its cache fed back; all logits of each call."""

    def __init__(self, folder: Path, opened: ort.InferenceSession | None = None) -> None:
        self.session = opened or session(folder)
        self.target = read_manifest(folder).target
        self.names = [value.name for value in self.session.get_outputs()]
        self.past: list[Array] = []

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the logits [B, S, V] of ``ids`` [B, S] after the past, with ``mask`` [B, T].

        Target ort reads rows of the mask as lengths: the padding of a prompt is not in its cache, and comes last.
        """
        if self.past and self.target == "ort":
            mask = mask.sort(dim=1, descending=True).values
        inputs = [value for value in self.session.get_inputs() if value.name.startswith("past")]
        if not self.past:
            half = np.float16 if "float16" in inputs[0].type else np.float32
            self.past = [np.zeros((len(ids), value.shape[1], 0, value.shape[3]), half) for value in inputs]
        feeds = {value.name: array for value, array in zip(inputs, self.past, strict=True)}
        feeds |= {"input_ids": ids.numpy(), "attention_mask": mask.numpy(), "logits_to_keep": np.array([0])}
        logits, *self.past = run(self.session, feeds)
        return torch.from_numpy(logits)


class Native:
    """The native causal LM with its cache fed back."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.past: tuple[KeyValue, ...] | None = None

    @torch.inference_mode()
    def __call__(self, ids: Tensor) -> Tensor:
        output = self.module(ids, past_key_values=self.past)
        self.past = output.past_key_values
        logits: Tensor = output.logits.float()
        return logits


@dataclass
class Difference:
    """The largest difference of logits seen, and whether every argmax agreed."""

    largest: float = 0.0
    agree: bool = True

    def add(self, found: Tensor, expected: Tensor) -> None:
        assert found.shape == expected.shape
        assert found.isfinite().all()
        self.largest = max(self.largest, (found - expected).abs().max().item())
        self.agree &= bool((found.argmax(-1) == expected.argmax(-1)).all())


def ids(vocabulary: int, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, vocabulary, (1, count), generator=generator)


def chunked(graph: CachedGraph, native: nn.Module, tokens: Tensor, chunks: Sequence[int]) -> Difference:
    """Compare one sequence, in calls of the given lengths."""
    difference, reference, start = Difference(), Native(native), 0
    for length in chunks:
        piece = tokens[:, start : start + length]
        start += length
        difference.add(graph(piece, torch.ones(1, start, dtype=torch.int64)), reference(piece))
    assert start == tokens.shape[1]
    return difference


def ragged(
    graph: CachedGraph,
    native: nn.Module,
    rows: Sequence[Tensor],
    prompts: Sequence[int],
    steps: int,
    *,
    left: bool = False,
) -> Difference:
    """Compare a batch of unequal prompts, padded on one side, then ``steps`` tokens one by one.

    The native definition gets each sequence on its own and without padding.
    """
    difference, references, longest = Difference(), [Native(native) for _ in rows], max(prompts)
    padded, mask = (
        torch.zeros(len(rows), longest, dtype=torch.int64),
        torch.zeros(len(rows), longest, dtype=torch.int64),
    )
    spans = [slice(longest - n, longest) if left else slice(0, n) for n in prompts]
    for row, (tokens, span, count) in enumerate(zip(rows, spans, prompts, strict=True)):
        padded[row, span], mask[row, span] = tokens[0, :count], 1
    logits = graph(padded, mask)
    for row, (tokens, span, count) in enumerate(zip(rows, spans, prompts, strict=True)):
        difference.add(logits[row : row + 1, span], references[row](tokens[:, :count]))
    for step in range(steps):
        new = torch.cat([tokens[:, n + step : n + step + 1] for tokens, n in zip(rows, prompts, strict=True)])
        mask = torch.cat([mask, torch.ones(len(rows), 1, dtype=torch.int64)], 1)
        logits = graph(new, mask)
        for row, reference in enumerate(references):
            difference.add(logits[row : row + 1], reference(new[row : row + 1]))
    return difference


def rounding(checkpoint: Checkpoint, tokens: Tensor, chunks: Sequence[int]) -> float:
    """Return the difference of the native definition in float32 from float64, in calls of the given lengths."""
    difference, start = Difference(), 0
    single, double = Native(checkpoint.load()), Native(checkpoint.load(dtype=torch.float64))
    for length in chunks:
        piece = tokens[:, start : start + length]
        start += length
        difference.add(single(piece), double(piece))
    return difference.largest
