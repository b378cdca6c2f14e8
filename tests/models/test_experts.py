"""Mixtures of experts equal transformers': the router logits, the load-balancing loss, gradients, other types."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from intaglio.errors import CheckpointError, UsageError
from intaglio.models import ops
from intaglio.models.config import ConfigReader
from intaglio.models.family import FAMILIES
from intaglio.models.heads import trunk
from intaglio.tests import tiny
from torch import Tensor

from .drive import TOLERANCE, Pair, difference, padded, positions_of, token_ids
from .variants import BY_NAME

NAMES = ("qwen2_moe-plain", "qwen2_moe-normalized", "qwen2_moe-sparse-step")
each = pytest.mark.parametrize("name", NAMES)


@each
@pytest.mark.parametrize("task", ["text-generation", "feature-extraction"])
def test_router_logits_on_request(pair: Callable[..., Pair], name: str, task: str) -> None:
    both = pair(BY_NAME[name], task)
    ids = token_ids(3, 12)
    with torch.no_grad():
        ours, theirs = (model(ids, output_router_logits=True).router_logits for model in (both.ours, both.theirs))
        assert both.ours(ids).router_logits is None
    assert len(ours) == len(theirs) in (2, 3)
    for our, their in zip(ours, theirs, strict=True):
        assert our.shape == (36, 6)
        assert difference(our, their) <= TOLERANCE


@each
@pytest.mark.parametrize("side", [None, "left", "right"])
def test_load_balancing_loss(pair: Callable[..., Pair], name: str, side: str | None) -> None:
    both = pair(BY_NAME[name])
    ids, mask = padded((13, 7), side or "left")
    predicted_by_token = (mask == 1) & (mask.roll(1, 1) == 1)  # what padding computes is undefined
    labels = ids if side is None else ids.masked_fill(~predicted_by_token, -100)
    given: dict[str, Any] = {"labels": labels, "output_router_logits": True}
    if side is not None:
        given |= {"attention_mask": mask, "position_ids": positions_of(mask)}
    with torch.no_grad():
        ours, theirs = both.ours(ids, **given), both.theirs(ids, **given)
        without = both.ours(ids, **given | {"output_router_logits": False})
    assert ours.aux_loss.item() == pytest.approx(theirs.aux_loss.item(), rel=TOLERANCE)
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), rel=TOLERANCE)
    assert ours.loss.item() == pytest.approx(without.loss.item() + 0.01 * ours.aux_loss.item(), rel=TOLERANCE)
    assert without.aux_loss is None


@pytest.mark.parametrize("extra", [{}, {"labels": token_ids(2, 9)}, {"output_hidden_states": True}], ids=str)
def test_the_config_may_ask_for_router_logits(pair: Callable[..., Pair], extra: Mapping[str, Any]) -> None:
    """The outputs as a tuple are in transformers' order."""
    both = pair(BY_NAME["qwen2_moe-plain"], output_router_logits=True)
    with torch.no_grad():
        pairs = [m(token_ids(2, 9), use_cache=False, return_dict=False, **extra) for m in (both.ours, both.theirs)]
    flat = [[t for value in output for t in (value if isinstance(value, tuple) else (value,))] for output in pairs]
    assert len(flat[0]) == len(flat[1])
    for our, their in zip(*flat, strict=True):
        assert difference(our, their) <= TOLERANCE


@each
def test_gradients(pair: Callable[..., Pair], name: str) -> None:
    """Every weight, the router's included, has transformers' gradient, whose tensors hold all experts."""
    both, ids = pair(BY_NAME[name]), token_ids(2, 15)
    for model in (both.ours, both.theirs):
        model.zero_grad()
        model(ids, labels=ids, output_router_logits=True).loss.backward()
    found: dict[str, Tensor] = {key: p.grad for key, p in both.ours.named_parameters() if p.grad is not None}
    compared = 0
    for key, parameter in both.theirs.named_parameters():
        wanted = parameter.grad
        if key.endswith("experts.gate_up_proj"):
            prefix = key.removesuffix("gate_up_proj")
            for index, both_parts in enumerate(wanted):
                for part, gradient in zip(("gate", "up"), both_parts.chunk(2), strict=True):
                    assert difference(found[f"{prefix}{index}.{part}_proj.weight"], gradient) <= 10 * TOLERANCE
                    compared += 1
        elif key.endswith("experts.down_proj"):
            for index, gradient in enumerate(wanted):
                name_here = f"{key.removesuffix('down_proj')}{index}.down_proj.weight"
                assert difference(found[name_here], gradient) <= 10 * TOLERANCE
                compared += 1
        else:
            assert difference(found[key], wanted) <= 10 * TOLERANCE
            compared += 1
    assert compared == len(found) == len(dict(both.ours.named_parameters()))


def test_in_bfloat16_the_softmax_is_in_float32(pair: Callable[..., Pair]) -> None:
    """Both multiply in bfloat16 and weigh in float32; with one expert they round alike."""
    both = pair(BY_NAME["qwen2_moe-normalized"])
    block, theirs = (model.get_submodule("model.layers.0.mlp") for model in (both.ours, both.theirs))
    x = torch.randn(2, 7, 64, generator=torch.Generator().manual_seed(3)).bfloat16()
    ids = torch.zeros(2, 7, dtype=torch.int64)
    try:
        plan = ops.plan(ids, None, 0, trunk(both.ours).rotary_emb)
        for module in (block, theirs):
            module.bfloat16()
        with torch.no_grad():
            assert difference(block(x, plan).float(), theirs(x).float()) <= 2e-2
    finally:
        for module in (block, theirs):
            module.float()


def test_a_model_without_experts_has_no_router_logits(pair: Callable[..., Pair]) -> None:
    both = pair(BY_NAME["qwen2-plain"])
    with pytest.raises(UsageError, match="output_router_logits is true, and the model has no experts; leave it out"):
        both.ours(token_ids(1, 4), output_router_logits=True)


REFUSED = [
    ({"num_experts_per_tok": 7}, r"num_experts_per_tok is 7, expected at most num_experts \(6\); mend config.json"),
    ({"mlp_only_layers": [0.5]}, "mlp_only_layers is .*, expected a list of layers' indices"),
    ({"decoder_sparse_step": 0}, "decoder_sparse_step is 0, expected a whole number of at least 1"),
    ({"use_sliding_window": True, "sliding_window": None}, "sliding_window is missing, expected the window of"),
    ({"layer_types": ["sliding_attention"] * 4}, "layer_types is .*, since use_sliding_window is not true"),
    ({"router_aux_loss_coef": -1}, "router_aux_loss_coef is -1, expected a positive number"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=str)
def test_what_the_config_cannot_say(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        FAMILIES["qwen2_moe"].parse(ConfigReader(tiny.config("qwen2_moe", **changes), "config.json"))
