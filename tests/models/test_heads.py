"""The bare model, both classifiers and question answering equal transformers', losses included."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from intaglio.errors import UnsupportedError
from intaglio.tests.tiny import ABSENT
from torch import Tensor

from .drive import PAD, TOLERANCE, Pair, difference, padded, positions_of, token_ids
from .variants import BY_NAME, HEAD_VARIANTS, WINDOW, Variant

SEQUENCE, TOKEN, ANSWER = "text-classification", "token-classification", "question-answering"
TASKS = ("feature-extraction", SEQUENCE, TOKEN, ANSWER)
FAMILIES = ("qwen2-max-window-layers", "exaone4-plain")


def heads_of(output: Any) -> list[Tensor]:
    """Return the output tensors of a head."""
    names = ("last_hidden_state", "logits", "start_logits", "end_logits")
    return [getattr(output, name) for name in names if hasattr(output, name)]


def assert_equal(ours: Any, theirs: Any, mask: Tensor, pooled: bool) -> None:
    for our, their in zip(heads_of(ours), heads_of(theirs), strict=True):
        kept = (our, their) if pooled else (our[mask != 0], their[mask != 0])
        assert difference(*kept) <= TOLERANCE


def ask(both: Pair, ids: Tensor, mask: Tensor | None = None, **labels: Tensor) -> tuple[Any, Any]:
    """Return both outputs, transformers' with the positions counted along the mask."""
    extra = {} if mask is None else {"position_ids": positions_of(mask)}
    with torch.no_grad():
        return both.ours(ids, mask, **labels), both.fresh()(ids, attention_mask=mask, **extra, **labels)


@pytest.mark.parametrize("variant", HEAD_VARIANTS, ids=str)
@pytest.mark.parametrize("task", TASKS)
def test_without_padding(pair: Callable[..., Pair], task: str, variant: Variant) -> None:
    both = pair(variant, task)
    for length in (1, WINDOW - 1, WINDOW, WINDOW + 1, 40):
        ids = token_ids(3, length, seed=length)
        assert_equal(*ask(both, ids), torch.ones_like(ids), task == SEQUENCE)


@pytest.mark.parametrize("variant", HEAD_VARIANTS, ids=str)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("task", TASKS)
def test_padded(pair: Callable[..., Pair], task: str, side: str, variant: Variant) -> None:
    both = pair(variant, task)
    ids, mask = padded((19, 4, 11), side, seed=1)
    if not variant.length_dependent:
        assert_equal(*ask(both, ids, mask), mask, task == SEQUENCE)
    with torch.no_grad():
        together = heads_of(both.ours(ids, mask))
        alone = [heads_of(both.fresh()(ids[row, mask[row] != 0][None])) for row in range(3)]
    for ours, *rows in zip(together, *alone, strict=True):
        if task == SEQUENCE:
            assert difference(ours, torch.cat(rows)) <= TOLERANCE
        else:
            assert difference(ours[mask != 0], torch.cat([row[0] for row in rows])) <= TOLERANCE


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("task", [SEQUENCE, TOKEN, ANSWER])
def test_hidden_states(pair: Callable[..., Pair], task: str, name: str) -> None:
    both, ids = pair(BY_NAME[name], task), token_ids(2, 12)
    with torch.no_grad():
        ours = both.ours(ids, output_hidden_states=True).hidden_states
        theirs = both.theirs(ids, output_hidden_states=True).hidden_states
    for our, their in zip(ours, theirs, strict=True):
        assert difference(our, their) <= TOLERANCE
    assert both.ours(ids).hidden_states is None


@pytest.mark.parametrize("name", FAMILIES)
def test_pooling_goes_by_the_pad_token_not_by_the_mask(pair: Callable[..., Pair], name: str) -> None:
    """A pad token inside the text does not end it; a sequence of padding alone is classified by its first position."""
    both = pair(BY_NAME[name], SEQUENCE)
    ids = token_ids(4, 9)
    ids[0, 3] = ids[1, -1] = PAD
    ids[2, 4:] = PAD
    ids[3] = PAD
    ours, theirs = ask(both, ids, torch.ones_like(ids))
    assert difference(ours.logits, theirs.logits) <= TOLERANCE


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("pad", [ABSENT, None], ids=["absent", "null"])
def test_without_a_pad_token_one_row_at_a_time(pair: Callable[..., Pair], name: str, pad: object) -> None:
    both = pair(BY_NAME[name], SEQUENCE, pad_token_id=pad)
    ours, theirs = ask(both, token_ids(1, 9))
    assert difference(ours.logits, theirs.logits) <= TOLERANCE
    with pytest.raises(UnsupportedError, match="classification of 2 rows needs pad_token_id"):
        both.ours(token_ids(2, 9))


SINGLE, SEVERAL, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
SEQUENCE_LOSSES = [
    (3, SINGLE, torch.tensor([2, 0, 1])),
    (3, SINGLE, torch.tensor([[2], [0], [1]])),
    (3, SINGLE, torch.tensor([2, -100, 1])),
    (3, None, torch.tensor([2, 2, 0])),
    (3, SEVERAL, torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 1]])),
    (3, None, torch.tensor([[1.0, 0, 1], [0, 0.5, 0], [0, 1, 1]])),
    (3, REGRESSION, torch.tensor([[1.0, -2, 1], [0, 0.5, 0], [3, 1, 1]])),
    (1, REGRESSION, torch.tensor([1.0, -2, 1])),
    (1, None, torch.tensor([[1.0], [-2], [0.25]])),
    (1, None, torch.tensor([1.0, -2, 1])),
]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("count", "kind", "labels"), SEQUENCE_LOSSES, ids=lambda value: str(value).replace("\n", ""))
def test_sequence_loss(pair: Callable[..., Pair], name: str, count: int, kind: str | None, labels: Tensor) -> None:
    id2label = {str(i): f"class {i}" for i in range(count)}
    label2id = {label: int(i) for i, label in id2label.items()}
    both = pair(BY_NAME[name], SEQUENCE, problem_type=kind, id2label=id2label, label2id=label2id)
    both.theirs.config.problem_type = kind  # transformers notes down there what it guessed last
    ids, mask = padded((12, 7, 9), "right")
    ours, theirs = ask(both, ids, mask, labels=labels)
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), rel=TOLERANCE)
    assert ours.logits.shape == (3, count)


@pytest.mark.parametrize("name", FAMILIES)
def test_token_loss(pair: Callable[..., Pair], name: str) -> None:
    both = pair(BY_NAME[name], TOKEN)
    ids, mask = padded((12, 7, 9), "right")
    labels = (ids % 3).masked_fill(mask == 0, -100)
    labels[0, :5] = -100
    ours, theirs = ask(both, ids, mask, labels=labels)
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), rel=TOLERANCE)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("start", "end"),
    [
        ([2, 0, 5], [3, 11, 5]),
        ([2, 12, 500], [3, 11, 12]),  # at and past the end: not counted
        ([-1, 4, 0], [3, -7, 1]),  # before the beginning: counted as the first token
        ([[2], [0], [5]], [[3], [11], [5]]),
    ],
    ids=["inside", "past the end", "negative", "a column each"],
)
def test_answer_loss(pair: Callable[..., Pair], name: str, start: list[Any], end: list[Any]) -> None:
    both = pair(BY_NAME[name], ANSWER)
    ids = token_ids(
        3, 12
    )  # not padded: transformers' softmax runs over the padding too, and what it holds is undefined
    positions = {"start_positions": torch.tensor(start), "end_positions": torch.tensor(end)}
    ours, theirs = ask(both, ids, **positions)
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), rel=TOLERANCE)


@pytest.mark.parametrize("task", [SEQUENCE, TOKEN])
def test_no_loss_without_labels(pair: Callable[..., Pair], task: str) -> None:
    assert pair(BY_NAME["qwen2-plain"], task).ours(token_ids(1, 5)).loss is None


def test_no_loss_without_both_ends(pair: Callable[..., Pair]) -> None:
    both, ids = pair(BY_NAME["qwen2-plain"], ANSWER), token_ids(1, 5)
    assert both.ours(ids).loss is None
    assert both.ours(ids, start_positions=torch.tensor([1])).loss is None
    assert both.ours(ids, end_positions=torch.tensor([1])).loss is None
