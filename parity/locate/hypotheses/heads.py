"""What each head says of the final hidden states, and what the usual mistakes would make of it."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ...artifact import Task
from ...models.layerwise import Layerwise
from .batches import Batch, Trail
from .symptoms import Candidate, listed, matched

KEPT = 4
"""How many of the last positions get logits: a vocabulary is wide."""


def outputs(stream: Layerwise, task: Task, batch: Batch, normed: Tensor, pool: Tensor | None = None) -> Tensor:
    """What a head says of normed hidden states [B, S, D].

    Args:
        pool: int64 [B], the positions that sequence classification reads; None for the right ones.

    Returns:
        logits [B, kept, V] of a causal LM, [B, L] of sequence and [B, S, L] of token classification, [B, S, 2] of
        question answering.
    """
    if task == "text-generation":
        return stream.logits(normed[:, -KEPT:])
    if task == "text-classification":
        normed = normed[
            torch.arange(len(normed)), last_tokens(batch, stream.config.pad_token_id) if pool is None else pool
        ]
    found: Tensor = stream.head(task)(normed)
    return found


def last_tokens(batch: Batch, pad: int | None) -> Tensor:
    """int64 [B]: of each row the last token that is not ``pad``."""
    size = batch.ids.shape[1]
    if pad is None:
        return torch.full((len(batch.ids),), size - 1)
    return (torch.arange(size) * (batch.ids != pad)).argmax(-1)


def head_mistakes(stream: Layerwise, task: Task, trail: Trail, wanted: Tensor, found: Tensor) -> Iterator[Candidate]:
    """Each as what it would have given."""
    batch, normed = trail.batch, stream.norm(trail.hidden)
    if task == "text-generation":
        yield from _language(stream, normed)
    yield "the final norm is left out in front of the head", outputs(stream, task, batch, trail.hidden)
    if task == "text-classification":
        yield from _pooling(stream, batch, normed)
    if task == "question-answering":
        yield "start and end are exchanged", wanted.flip(-1)
    elif task != "text-generation":
        order = matched(wanted[..., None], found[..., None])
        if order is not None:
            yield f"the labels are in another order ({listed(order)})", wanted[..., order]
    if task in ("token-classification", "question-answering"):
        yield "its bias is missing or zero", wanted - stream.head(task).get_parameter("bias").detach()
    if wanted.shape == found.shape:
        off = ~((wanted - found).abs().flatten(0, -2) <= 1e-2 * wanted.std()).all(0)
        wrong = off.nonzero().flatten()
        if 0 < len(wrong) < wanted.shape[-1]:
            words = f"{len(wrong):,} of the {wanted.shape[-1]:,} rows of its weight are wrong"
            yield f"{words}, from {int(wrong[0]):,} to {int(wrong[-1]):,}", torch.where(off, found, wanted)


def _language(stream: Layerwise, normed: Tensor) -> Iterator[Candidate]:
    if not stream.config.tie_word_embeddings:
        table = stream.checkpoint.rows(f"{stream.checkpoint.trunk_prefix}embed_tokens.weight")
        logits = torch.cat([normed[:, -KEPT:] @ rows.float().t() for _, rows in table], -1)
        yield "lm_head is the embedding, and config.json has tie_word_embeddings = false", logits
    yield "logits are of the first positions, not of the last", stream.logits(normed[:, :KEPT])


def _pooling(stream: Layerwise, batch: Batch, normed: Tensor) -> Iterator[Candidate]:
    rows, size = batch.ids.shape
    last = last_tokens(batch, stream.config.pad_token_id)
    for name, pool in (
        ("first token", torch.zeros_like(last)),
        ("last position, be it padding", torch.full((rows,), size - 1)),
        ("token before the last", (last - 1).clamp(min=0)),
    ):
        yield f"the score is of the {name}", outputs(stream, "text-classification", batch, normed, pool)
    mean = (normed * batch.new[..., None]).sum(1) / batch.new.sum(1, keepdim=True)
    yield "the score is of the mean of the tokens", stream.head("text-classification")(mean)
