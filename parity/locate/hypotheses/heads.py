"""The output of each task's head, and its usual mistakes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ....artifact import Task
from ....models.loading.layerwise import Layerwise
from ..scenarios import Scenario
from ..source_run import SourceRun
from .mismatch import Hypothesis, find_permutation, format_order

KEPT = 4
"""The number of last positions with logits; the logits of more would take much memory."""


def head_output(
    source: Layerwise, task: Task, scenario: Scenario, normed: Tensor, pooled: Tensor | None = None
) -> Tensor:
    """Return the output of the source's head for normed hidden states [B, S, D].

    Args:
        pooled: int64 [B], the positions that sequence classification reads; None for the last tokens.

    Returns:
        logits [B, kept, V] of a causal LM, [B, L] of sequence and [B, S, L] of token classification, [B, S, 2] of
        question answering.
    """
    if task == "text-generation":
        return source.logits(normed[:, -KEPT:])
    if task == "text-classification":
        positions = last_tokens(scenario, source.config.pad_token_id) if pooled is None else pooled
        normed = normed[torch.arange(len(normed)), positions]
    output: Tensor = source.head(task)(normed)
    return output


def last_tokens(scenario: Scenario, pad: int | None) -> Tensor:
    """Return the position of the last token of each sequence that is not ``pad``, int64 [B]."""
    size = scenario.ids.shape[1]
    if pad is None:
        return torch.full((len(scenario.ids),), size - 1)
    return (torch.arange(size) * (scenario.ids != pad)).argmax(-1)


def head_hypotheses(
    source: Layerwise, task: Task, run: SourceRun, expected: Tensor, actual: Tensor
) -> Iterator[Hypothesis]:
    """Yield mistakes of a task's head."""
    scenario, normed = run.scenario, source.norm(run.hidden)
    if task == "text-generation":
        yield from _language_model(source, normed)
    yield "the final norm before the head is left out", head_output(source, task, scenario, run.hidden)
    if task == "text-classification":
        yield from _pooling(source, scenario, normed)
    if task == "question-answering":
        yield "start and end are swapped", expected.flip(-1)
    elif task != "text-generation":
        order = find_permutation(expected[..., None], actual[..., None])
        if order is not None:
            yield f"the labels are in a different order ({format_order(order)})", expected[..., order]
    if task in ("token-classification", "question-answering"):
        yield "its bias is missing or zero", expected - source.head(task).get_parameter("bias").detach()
    if expected.shape == actual.shape:
        correct = ((expected - actual).abs().flatten(0, -2) <= 1e-2 * expected.std()).all(0)
        wrong = (~correct).nonzero().flatten()
        if 0 < len(wrong) < expected.shape[-1]:
            text = f"{len(wrong):,} of the {expected.shape[-1]:,} rows of its weight are wrong"
            yield f"{text}, from {int(wrong[0]):,} to {int(wrong[-1]):,}", torch.where(correct, expected, actual)


def _language_model(source: Layerwise, normed: Tensor) -> Iterator[Hypothesis]:
    if not source.config.tie_word_embeddings:
        embedding = source.checkpoint.rows(f"{source.checkpoint.trunk_prefix}embed_tokens.weight")
        logits = torch.cat([normed[:, -KEPT:] @ rows.float().t() for _, rows in embedding], -1)
        yield "lm_head is the embedding, config.json has tie_word_embeddings = false", logits
    yield "the logits are those of the first positions instead of the last", source.logits(normed[:, :KEPT])


def _pooling(source: Layerwise, scenario: Scenario, normed: Tensor) -> Iterator[Hypothesis]:
    last = last_tokens(scenario, source.config.pad_token_id)
    for name, positions in (
        ("first token", torch.zeros_like(last)),
        ("last position, even where it is padding", torch.full_like(last, scenario.ids.shape[1] - 1)),
        ("token before the last", (last - 1).clamp(min=0)),
    ):
        output = head_output(source, "text-classification", scenario, normed, positions)
        yield f"the score is computed from the {name}", output
    mean = (normed * scenario.unpadded[..., None]).sum(1) / scenario.unpadded.sum(1, keepdim=True)
    yield "the score is computed from the mean of the tokens", source.head("text-classification")(mean)
