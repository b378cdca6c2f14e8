"""A decoder that runs one layer at a time and holds that layer's weights alone: a checkpoint may exceed memory.

stream = Layerwise(checkpoint)
hidden, plan = stream.embed(tokens), stream.plan(*tokens.shape)
for index in range(checkpoint.config.num_hidden_layers):
    hidden, _ = stream.layer(index)(hidden, None, plan)
logits = stream.logits(stream.norm(hidden))
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...artifact import Task
from ...errors import CheckpointError
from .. import ops
from ..family import FAMILIES
from ..heads import build
from ..rope import RotaryEmbedding
from ..weight_source import WeightSource

LM_HEAD_CHUNK_BYTES = 1 << 24
"""The size of a chunk of the LM head, as stored; widened to float32 it must stay small beside a layer."""


class Layerwise:
    """The parts of a checkpoint's model, in float32, each read when it is asked for."""

    def __init__(self, checkpoint: WeightSource) -> None:
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self._rotary = RotaryEmbedding(self.config.rope, self.config.head_dim)

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the embeddings, float32 [B, S, D], of tokens int64 [B, S]; each row is read once, in the file's order.

        Raises:
            CheckpointError: a token is outside the vocabulary.
        """
        largest, size = int(tokens.max()), self.config.vocab_size
        if largest >= size:
            raise CheckpointError(
                f"{self.checkpoint.folder}: tokenizer.json makes token {largest:,} of the text, and config.json has "
                f"vocab_size {size:,}; the two belong to different models: fetch the checkpoint again"
            )
        wanted, index = torch.unique(tokens, return_inverse=True)
        embeddings = torch.empty(len(wanted), self.config.hidden_size)
        for start, rows in self.checkpoint.rows(self._trunk("embed_tokens.weight")):
            inside = (wanted >= start) & (wanted < start + len(rows))
            embeddings[inside] = rows[wanted[inside] - start].float()
        return embeddings[index]

    def layer(self, index: int, state: Mapping[str, Tensor] | None = None) -> nn.Module:
        """Read layer ``index``, or make it of tensors; it is called as ``layer(hidden, past, plan)``."""
        with torch.device("meta"):
            layer = FAMILIES[self.config.family].trunk.layer(self.config, index)
        if state is None:
            prefix = self._trunk(f"layers.{index}.")
            state = {name: self.checkpoint.tensor(prefix + name).float() for name in layer.state_dict()}
        layer.load_state_dict(state, assign=True)
        return layer.eval().requires_grad_(False)

    def plan(self, rows: int, length: int, past: int = 0) -> Any:
        """Return what the layers share for ``length`` new tokens after ``past`` cached ones, without padding."""
        ids = torch.zeros(rows, length, dtype=torch.int64)
        return ops.plan(ids, None, past, self._rotary, causal=self.config.causal)

    def norm(self, hidden: Tensor) -> Tensor:
        """Apply the final norm, [..., D]."""
        scale = self.checkpoint.tensor(self._trunk("norm.weight")).float()
        return ops.rms_norm(hidden, scale, self.config.rms_norm_eps)

    def logits(self, normed: Tensor) -> Tensor:
        """Return next-token logits [..., V] of normed hidden states [..., D]; the LM head is read in chunks of rows."""
        tied = self.config.tie_word_embeddings
        name = self._trunk("embed_tokens.weight") if tied else "lm_head.weight"
        logits = torch.empty(*normed.shape[:-1], self.config.vocab_size)
        for start, rows in self.checkpoint.rows(name, chunk_bytes=LM_HEAD_CHUNK_BYTES):
            logits[..., start : start + len(rows)] = normed @ rows.float().t()
        return logits

    def head(self, task: Task) -> nn.Module:
        """Read the final projection of a task that does not generate: ``score`` or ``qa_outputs``."""
        with torch.device("meta"):
            module = build(self.config, task)
        name = "qa_outputs" if task == "question-answering" else "score"
        head = module.get_submodule(name)
        state = {leaf: self.checkpoint.tensor(f"{name}.{leaf}").float() for leaf in head.state_dict()}
        head.load_state_dict(state, assign=True)
        return head.eval().requires_grad_(False)

    def _trunk(self, name: str) -> str:
        return self.checkpoint.trunk_prefix + name
