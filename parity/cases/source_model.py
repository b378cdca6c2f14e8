"""The source: a checkpoint's native definition in float32, run layer by layer, so that it need not fit in memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...artifact import Task
from ...errors import CheckpointError
from ...models.checkpoint import Checkpoint
from ...models.heads import build
from ...models.loading.layerwise import Layerwise
from ...models.loading.parameters import check_parameters

Floats = NDArray[np.float32]
Tokens = NDArray[np.int64]

CHUNK = 512
"""New tokens at once, which bounds attention's scores [H, S, T]."""
ROWS = 4
"""Sequences that go through a layer at once."""


@dataclass(frozen=True, eq=False)
class Passage:
    """Tokens int64 [S], and the lengths of the consecutive chunks in which they are read."""

    tokens: Tokens
    chunks: tuple[int, ...]


class SourceModel:
    """A checkpoint as the task's model: ``read`` runs it over passages, ``outputs`` then returns its head's outputs."""

    def __init__(self, checkpoint: Checkpoint, task: Task) -> None:
        """Open the layers and the head.

        Raises:
            CheckpointError, UnsupportedError: its tensors are not those of the task's module.
        """
        with torch.device("meta"):
            module = build(checkpoint.config, task)
        check_parameters(checkpoint, task, module)
        self.config = checkpoint.config
        self.task = task
        self.model = Layerwise(checkpoint)
        self._head = None if task in ("text-generation", "feature-extraction") else self.model.head(task)
        self._states: dict[int, Tensor] = {}

    @torch.inference_mode()
    def read(self, passages: Sequence[Passage], advance: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Run passages; their hidden states are kept for ``outputs``.

        Sequences of a batch are independent, so that passages of one shape are batched. If RoPE's frequencies depend
        on the length, a passage is read in its own chunks; otherwise in any, since the result is the same. Where tokens
        attend to later ones, a passage is read whole.

        Raises:
            CheckpointError: the model computes NaN or infinite values.
        """
        causal, dependent = self.config.causal, self.config.rope.length_dependent
        read: list[Passage] = []
        begun: list[tuple[Passage, Passage]] = []
        for passage in sorted(passages, key=lambda p: -p.tokens.size):
            # If attention is causal, a passage that begins another one is not read twice.
            extends = causal and not dependent
            longer = next((other for other in read if extends and _begins(other.tokens, passage.tokens)), None)
            if longer is None:
                read.append(passage)
            else:
                begun.append((passage, longer))
        groups: dict[tuple[int, tuple[int, ...]], list[Passage]] = {}
        for passage in read:
            size = passage.tokens.size
            chunks = passage.chunks if dependent else _chunks(size) if causal else (size,)
            groups.setdefault((size, chunks), []).append(passage)
        batches = [
            (chunks, members[start : start + ROWS])
            for (_, chunks), members in groups.items()
            for start in range(0, len(members), ROWS)
        ]
        hidden = [self.model.embed(torch.from_numpy(np.stack([p.tokens for p in rows]))) for _, rows in batches]
        plans: dict[tuple[int, int, int], Any] = {}
        for index in range(self.config.num_hidden_layers):
            layer = self.model.layer(index)
            for place, (chunks, rows) in enumerate(batches):
                past, start, outputs = None, 0, []
                for length in chunks:
                    shape = (len(rows), length, start)
                    if shape not in plans:
                        plans[shape] = self.model.plan(*shape)
                    output, past = layer(hidden[place][:, start : start + length], past, plans[shape])
                    outputs.append(output)
                    start += length
                hidden[place] = torch.cat(outputs, 1)
            advance(index + 1, self.config.num_hidden_layers)
        for (_, rows), states in zip(batches, hidden, strict=True):
            normed = self.model.norm(states)
            if not torch.isfinite(normed).all():
                raise CheckpointError(
                    f"{self.model.checkpoint.folder}: the model computes NaN or infinite values from this text; "
                    "the checkpoint is damaged: fetch it again"
                )
            for row, passage in enumerate(rows):
                self._states[id(passage)] = normed[row]
        for passage, longer in begun:
            self._states[id(passage)] = self._states[id(longer)][: passage.tokens.size]

    @torch.inference_mode()
    def outputs(self, passage: Passage, first: int, count: int) -> Floats:
        """Return the head's outputs at ``count`` positions from ``first`` on, float32.

        Logits [count, V] of a causal LM, [count, L] of token classification, [1, L] of sequence classification (from
        the last position, whichever are asked for), start and end logits [2, S] of question answering, hidden states
        [count, D] of the bare model.
        """
        states = self._states[id(passage)]
        if self.task == "text-generation":
            found = self.model.logits(states[first : first + count])
        elif self._head is None:
            found = states[first : first + count]
        elif self.task == "text-classification":
            found = self._head(states[-1:])
        elif self.task == "question-answering":
            found = self._head(states).t()
        else:
            found = self._head(states[first : first + count])
        array: Floats = found.contiguous().numpy()
        return array


def _begins(tokens: Tokens, start: Tokens) -> bool:
    return bool((tokens[: start.size] == start).all())


def _chunks(size: int) -> tuple[int, ...]:
    whole, rest = divmod(size, CHUNK)
    return (CHUNK,) * whole + ((rest,) if rest else ())
