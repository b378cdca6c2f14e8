"""Every argument that transformers documents for ``forward`` does here what it does there, for every head."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import transformers
from intaglio.errors import UnsupportedError, UsageError
from torch import Tensor

from ..drive import TOLERANCE, Pair, cache_name, difference, padded, positions_of, token_ids
from ..variants import BY_NAME

TASKS = ("text-generation", "feature-extraction", "text-classification", "token-classification", "question-answering")
FAMILIES = ("qwen2-max-window-layers", "exaone4-plain")
GLOBAL = ("qwen2-plain", "exaone4-global")
POSITIONS = torch.tensor([[3, 4, 5, 9, 10, 11, 30, 31, 2, 3]])
PACKED = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 0, 1, 2], [0, 1, 0, 1, 2, 3, 4, 5, 6, 7]])
LABELS: Mapping[str, Mapping[str, Tensor]] = {
    "text-generation": {"labels": token_ids(2, 10, seed=5)},
    "text-classification": {"labels": torch.tensor([2, 0])},
    "token-classification": {"labels": torch.arange(20).reshape(2, 10) % 3},
    "question-answering": {"start_positions": torch.tensor([1, 8]), "end_positions": torch.tensor([3, 20])},
}

each_task = pytest.mark.parametrize("task", TASKS)
each_family = pytest.mark.parametrize("name", FAMILIES)


def flat(output: Any) -> list[Tensor]:
    """Return the tensors of a tuple of outputs; a cache's layers as pairs."""
    tensors: list[Tensor] = []
    for value in output:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, tuple):
            tensors += flat(value)
        else:
            tensors += [tensor for layer in value.layers for tensor in (layer.keys, layer.values)]
    return tensors


def both_tuples(both: Pair, **given: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Return the outputs of both as flat tuples, in the documented order."""
    with torch.no_grad():
        ours, theirs = both.ours(**given, return_dict=False), both.theirs(**given, return_dict=False)
    assert isinstance(ours, tuple)
    assert isinstance(theirs, tuple)
    return flat(ours), flat(theirs)


def assert_same(ours: list[Tensor], theirs: list[Tensor], rows: Tensor | None = None) -> None:
    assert [tensor.shape for tensor in ours] == [tensor.shape for tensor in theirs]
    for our, their in zip(ours, theirs, strict=True):
        kept = (our, their) if rows is None else (our[rows], their[rows])
        assert difference(*kept) <= TOLERANCE


@each_task
@each_family
def test_tuples_have_the_documented_order(pair: Callable[..., Pair], name: str, task: str) -> None:
    """Loss, logits, hidden states and attention weights, without and with each."""
    both, ids = pair(BY_NAME[name], task), token_ids(2, 10)
    everything = {"output_hidden_states": True, "output_attentions": True, **LABELS.get(task, {})}
    for extra in ({}, {"output_hidden_states": True}, everything):
        assert_same(*both_tuples(both, input_ids=ids, use_cache=False, **extra))


@pytest.mark.parametrize("task", ["text-generation", "feature-extraction", "text-classification"])
@pytest.mark.parametrize("name", GLOBAL)
def test_the_past_is_in_the_tuple(pair: Callable[..., Pair], name: str, task: str) -> None:
    both, ids = pair(BY_NAME[name], task), token_ids(2, 10)
    for use_cache in (None, True):
        ours, theirs = both_tuples(both, input_ids=ids, use_cache=use_cache, output_hidden_states=True)
        assert len(ours) == 1 + 2 * 4 + 5
        assert_same(ours, theirs)


@each_task
@each_family
def test_use_cache(pair: Callable[..., Pair], name: str, task: str) -> None:
    both, ids = pair(BY_NAME[name], task), token_ids(1, 4)
    keeps = task in ("text-generation", "feature-extraction", "text-classification")
    if task == "question-answering":
        assert not hasattr(both.ours(ids), "past_key_values")
        return
    assert (both.ours(ids).past_key_values is not None) == keeps
    assert both.ours(ids, use_cache=False).past_key_values is None


@each_task
@each_family
def test_inputs_embeds(pair: Callable[..., Pair], name: str, task: str) -> None:
    both, ids = pair(BY_NAME[name], task), token_ids(2, 10)
    embeds = both.theirs.get_input_embeddings()(ids).detach() * 1.5 + 0.01
    mask = padded((10, 7), "left")[1]
    extra: dict[str, Any] = {"use_cache": False, **LABELS.get(task, {})}
    assert_same(*both_tuples(both, inputs_embeds=embeds, **extra))
    ours, theirs = both_tuples(both, inputs_embeds=embeds, attention_mask=mask, use_cache=False)
    assert_same(ours, theirs, None if task == "text-classification" else mask != 0)


@each_task
@each_family
def test_position_ids(pair: Callable[..., Pair], name: str, task: str) -> None:
    both, ids = pair(BY_NAME[name], task), token_ids(2, 10)
    for positions in (POSITIONS, torch.cat([POSITIONS, POSITIONS.flip(1)]), torch.full((2, 10), 7)):
        # With a mask they are no packed sequences.
        given: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "position_ids": positions}
        assert_same(*both_tuples(both, **given, use_cache=False))
    mask = padded((10, 4), "left")[1]
    given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions_of(mask) + 3, "use_cache": False}
    ours, theirs = both_tuples(both, **given)
    if task == "text-classification":
        assert_same(ours, theirs)
    else:
        assert_same(ours, theirs, mask != 0)


@each_task
@each_family
def test_packed_sequences(pair: Callable[..., Pair], name: str, task: str) -> None:
    """Without mask and cache, positions that start anew are sequences of their own."""
    both, ids = pair(BY_NAME[name], task), token_ids(2, 10)
    extra = {"output_attentions": True, "use_cache": False}
    ours, theirs = both_tuples(both, input_ids=ids, position_ids=PACKED, **extra)
    assert_same(ours, theirs)
    if task != "text-classification":
        with torch.no_grad():
            alone = both.ours(ids[:1, 7:], return_dict=False)[0]
        assert difference(ours[0][:1, 7:], alone) <= TOLERANCE


@pytest.mark.parametrize("name", [*FAMILIES, "qwen2-rope-yarn", "exaone4-rope-llama3"])
def test_position_ids_after_a_past(pair: Callable[..., Pair], name: str) -> None:
    both = pair(BY_NAME[name])
    ids, positions = token_ids(2, 14), torch.arange(14)[None] + 5
    cache = transformers.DynamicCache(config=both.theirs.config)
    past, first = None, 0
    for end in (9, 10, 14):
        chunk, place = ids[:, first:end], positions[:, first:end]
        with torch.no_grad():
            ours = both.ours(chunk, position_ids=place, past_key_values=past, cache_position=torch.arange(first, end))
            theirs = both.theirs(chunk, position_ids=place, use_cache=True, **{cache_name(both.theirs): cache})
        assert difference(ours.logits, theirs.logits) <= TOLERANCE
        past, first = ours.past_key_values, end


@each_task
@pytest.mark.parametrize("name", [*FAMILIES, "exaone4-rope-longrope"])
def test_attentions(pair: Callable[..., Pair], name: str, task: str) -> None:
    """The weights, and nothing else changes."""
    both = pair(BY_NAME[name], task)
    ids, mask = padded((12, 7), "right")
    with torch.no_grad():
        ours = both.ours(ids, mask, output_attentions=True)
        theirs = both.fresh()(ids, attention_mask=mask, output_attentions=True)
        plain = both.ours(ids, mask)
    assert plain.attentions is None
    assert len(ours.attentions) == len(theirs.attentions) == 4
    for our, their in zip(ours.attentions, theirs.attentions, strict=True):
        assert our.shape == their.shape == (2, 4, 12, 12)
        assert difference(our.transpose(1, 2)[mask != 0], their.transpose(1, 2)[mask != 0]) <= TOLERANCE
    for our, other in zip(ours.to_tuple()[:1], plain.to_tuple()[:1], strict=True):
        assert difference(our, other) <= TOLERANCE


def test_attentions_after_a_past(pair: Callable[..., Pair]) -> None:
    both, ids = pair(BY_NAME["qwen2-plain"]), token_ids(1, 9)
    with torch.no_grad():
        past = both.ours(ids[:, :6]).past_key_values
        found = both.ours(ids[:, 6:], past_key_values=past, output_attentions=True).attentions
        whole = both.theirs(ids, output_attentions=True).attentions
    for our, their in zip(found, whole, strict=True):
        assert difference(our, their[:, :, 6:]) <= TOLERANCE


@pytest.mark.parametrize("name", GLOBAL)
def test_cache_objects_of_transformers(pair: Callable[..., Pair], name: str) -> None:
    """Both sides read and extend one ``DynamicCache`` in turn, which is returned as it was given."""
    both, ids = pair(BY_NAME[name]), token_ids(2, 13)
    cache = transformers.DynamicCache()
    given: dict[str, Any] = {cache_name(both.theirs): cache}
    with torch.no_grad():
        whole = both.theirs(ids).logits
        first = both.ours(ids[:, :5], past_key_values=cache)
        assert first.past_key_values is cache
        assert cache.get_seq_length() == 5
        second = both.theirs(ids[:, 5:6], use_cache=True, **given)
        third = both.ours(ids[:, 6:11], past_key_values=cache)
        fourth = both.theirs(ids[:, 11:], use_cache=True, **given)
    found = torch.cat([output.logits for output in (first, second, third, fourth)], 1)
    assert difference(found, whole) <= TOLERANCE
    with torch.no_grad():
        assert both.ours(ids[:, :1], past_key_values=cache, use_cache=False).past_key_values is None
    assert cache.get_seq_length() == 13


def test_a_cache_object_that_drops_tokens(pair: Callable[..., Pair]) -> None:
    both, ids = pair(BY_NAME["exaone4-plain"]), token_ids(1, 9)
    cache = transformers.DynamicCache(config=both.theirs.config)
    with torch.no_grad():
        both.theirs(ids, use_cache=True, **{cache_name(both.theirs): cache})
        with pytest.raises(
            UnsupportedError, match=r"past_key_values: layer 0 holds 5 of 9 tokens, .* without a config"
        ):
            both.ours(ids[:, :1], past_key_values=cache)


@each_task
@each_family
def test_documented_order_of_the_arguments(pair: Callable[..., Pair], name: str, task: str) -> None:
    both = pair(BY_NAME[name], task)
    ours = list(inspect.signature(both.ours.forward).parameters)
    theirs = [name.replace("cache", "past_key_values") if name == "cache" else name for name in THEIRS[task]]
    assert ours[: len(theirs)] == theirs


COMMON = ("input_ids", "attention_mask", "position_ids", "past_key_values", "inputs_embeds")
THEIRS: Mapping[str, tuple[str, ...]] = {
    "text-generation": (*COMMON, "labels"),
    "feature-extraction": (*COMMON, "use_cache"),
    "text-classification": (*COMMON, "labels"),
    "token-classification": (*COMMON, "labels"),
    "question-answering": (*COMMON, "start_positions", "end_positions"),
}

WRONG: Mapping[str, tuple[Callable[[Tensor], dict[str, Any]], str]] = {
    "neither": (lambda _: {}, "neither of input_ids and inputs_embeds are given; give one"),
    "both": (
        lambda ids: {"input_ids": ids, "inputs_embeds": torch.zeros(2, 6, 64)},
        "both of input_ids and inputs_embeds are given; give one",
    ),
    "mask": (
        lambda ids: {"input_ids": ids, "attention_mask": torch.ones(2, 5)},
        r"attention_mask has shape \[2, 5\], and 2 rows of 0 cached and 6 new tokens need \[2, 6\]",
    ),
    "positions": (
        lambda ids: {"input_ids": ids, "position_ids": torch.zeros(2, 7).long()},
        r"position_ids has shape \[2, 7\]; give \[2, 6\]",
    ),
    "cache positions": (
        lambda ids: {"input_ids": ids, "cache_position": torch.arange(1, 7)},
        "cache_position is not 0 to 5, the slots after the past; leave it out",
    ),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG)
def test_refusals(pair: Callable[..., Pair], given: Callable[[Tensor], dict[str, Any]], message: str) -> None:
    both = pair(BY_NAME["qwen2-plain"])
    with pytest.raises(UsageError, match=message):
        both.ours(**given(token_ids(2, 6)))
    with pytest.raises(TypeError, match="unexpected keyword argument 'hidden_state'"):
        both.ours(token_ids(2, 6), hidden_state=True)
