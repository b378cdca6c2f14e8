"""The native causal language models equal transformers', in every variant and for every split of the tokens."""

from collections.abc import Callable
from itertools import cycle

import pytest
import torch
from intaglio.errors import UsageError

from .drive import TOLERANCE, Pair, difference, padded, run_ours, run_rows_alone, run_theirs, split, token_ids
from .variants import BY_NAME, ORIGINAL, VARIANTS, WINDOW, Variant

# Below, at and above the window and the original length of the scaled RoPE types.
LENGTHS = (1, WINDOW - 1, WINDOW, WINDOW + 1, ORIGINAL, ORIGINAL + 1, 40)

CACHED = {
    "decode": [WINDOW - 2, 1, 1, 1, ORIGINAL - 9, 1, 1, 1, 1],  # steps across the window and the original length
    "chunks": [1, 4, 4, 10, 1],
}
each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=str)

# Not every combination: each variant has a past, padding on either side and both ways of running; each way of caching,
# and each pair of side and steps, occurs in every other variant.
WITH_CACHED = list(zip(VARIANTS, cycle(CACHED), strict=False))
PADDINGS = cycle(
    [
        (("left", "one shot"), ("right", "decode")),
        (("left", "decode"), ("right", "one shot")),
    ]
)
PADDED = [(variant, *padding) for variant, both in zip(VARIANTS, PADDINGS, strict=False) for padding in both]


@each_variant
def test_one_shot_at_every_length(pair: Callable[..., Pair], variant: Variant) -> None:
    both = pair(variant)
    for length in LENGTHS:
        ids = token_ids(2, length, seed=length)
        assert difference(run_ours(both.ours, [ids]), run_theirs(both.fresh(), [ids])) <= TOLERANCE, length


@pytest.mark.parametrize(("variant", "steps"), WITH_CACHED, ids=str)
def test_prefill_then_more(pair: Callable[..., Pair], variant: Variant, steps: str) -> None:
    both = pair(variant)
    pieces = split(token_ids(2, sum(CACHED[steps]), seed=1), CACHED[steps])
    assert difference(run_ours(both.ours, pieces), run_theirs(both.fresh(), pieces)) <= TOLERANCE


@pytest.mark.parametrize(("variant", "side", "steps"), PADDED, ids=str)
def test_padded_batch(pair: Callable[..., Pair], variant: Variant, side: str, steps: str) -> None:
    both = pair(variant)
    ids, mask = padded((19, 4), side, seed=2)
    pieces = [ids]
    if steps == "decode":
        more = token_ids(2, 4, seed=3)
        pieces, mask = [ids, *torch.split(more, 1, 1)], torch.cat((mask, torch.ones_like(more)), 1)
    ours = run_ours(both.ours, pieces, mask)
    # transformers on the padded batch, unless its answer depends on the batch: it scales RoPE by the longest row, and
    # counts a window in slots, so that padding in the middle takes places in it. Then each row by itself says more.
    if variant.length_dependent or (side == "right" and steps == "decode"):
        for row, alone in enumerate(run_rows_alone(both, pieces, mask)):
            assert difference(ours[row][mask[row] != 0], alone) <= TOLERANCE, f"row {row}"
    else:
        theirs = run_theirs(both.theirs, pieces, mask)
        assert difference(ours[mask != 0], theirs[mask != 0]) <= TOLERANCE


@pytest.mark.parametrize("name", ["qwen2-plain", "exaone4-plain", "exaone4-tied"])
def test_past_from_a_mask_with_holes(pair: Callable[..., Pair], name: str) -> None:
    """Padding may be anywhere: each sequence depends on its own tokens alone."""
    both = pair(BY_NAME[name])
    ids = token_ids(3, 21, seed=4)
    mask = (torch.rand(3, 21, generator=torch.Generator().manual_seed(5)) < 0.7).long()
    mask[:, -1] = 1
    pieces = split(ids, [9, 6, 5, 1])
    ours = run_ours(both.ours, pieces, mask)
    for row, alone in enumerate(run_rows_alone(both, pieces, mask)):
        assert difference(ours[row][mask[row] != 0], alone) <= TOLERANCE, f"row {row}"


@pytest.mark.parametrize("name", ["qwen2-max-window-layers", "exaone4-plain"])
def test_padding_gives_finite_logits(pair: Callable[..., Pair], name: str) -> None:
    ids, mask = padded((9, 1), "left")
    assert torch.isfinite(run_ours(pair(BY_NAME[name]).ours, [ids], mask)).all()


KEPT = {
    **{str(count): count for count in (0, 1, 3, 11, 50)},
    "one position": torch.tensor([4]),
    "positions": torch.tensor([0, 7, 3, 3, -1]),
    "no position": torch.tensor([], dtype=torch.int64),
    "positions of each row": torch.tensor([[0, 9], [5, 2]]),
    "a mask": torch.tensor([[True, False] * 5 + [True], [False] * 9 + [True] * 2]),
}


@pytest.mark.parametrize("keep", KEPT.values(), ids=KEPT)
@pytest.mark.parametrize("name", ["qwen2-tied", "exaone4-plain"])
def test_logits_to_keep(pair: Callable[..., Pair], name: str, keep: int | torch.Tensor) -> None:
    both, ids = pair(BY_NAME[name]), token_ids(2, 11)
    with torch.no_grad():
        ours = both.ours(ids, logits_to_keep=keep).logits
        theirs = both.theirs(ids, logits_to_keep=keep).logits
        every = both.ours(ids).logits
    assert ours.shape == theirs.shape
    if ours.numel():
        assert difference(ours, theirs) <= TOLERANCE
    if isinstance(keep, torch.Tensor) and keep.dim() == 1:
        assert torch.allclose(ours, every[:, keep], atol=1e-6)


@pytest.mark.parametrize("keep", [torch.tensor(2), torch.ones(11, dtype=torch.bool), torch.zeros(3, 1).long()], ids=str)
def test_logits_to_keep_of_another_form(pair: Callable[..., Pair], keep: torch.Tensor) -> None:
    with pytest.raises(
        UsageError, match=r"logits_to_keep is a \w+ tensor of shape .* for 2 rows of 11 tokens; give how"
    ):
        pair(BY_NAME["qwen2-tied"]).ours(token_ids(2, 11), logits_to_keep=keep)


@pytest.mark.parametrize("name", ["qwen2-plain", "exaone4-tied"])
@pytest.mark.parametrize("ignored", [0, 1, 4])
def test_loss(pair: Callable[..., Pair], name: str, ignored: int) -> None:
    both = pair(BY_NAME[name])
    ids, mask = padded((13, 7), "right")
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :ignored] = -100
    with torch.no_grad():
        ours, theirs = both.ours(ids, mask, labels=labels), both.theirs(ids, attention_mask=mask, labels=labels)
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), rel=TOLERANCE)
    assert both.ours(ids, mask).loss is None


@pytest.mark.parametrize("name", ["qwen2-plain", "qwen2-tied", "exaone4-plain", "exaone4-tied"])
def test_loss_gradients(pair: Callable[..., Pair], name: str) -> None:
    """Every parameter has transformers' gradient, so that training with the native modules is the same."""
    both, ids = pair(BY_NAME[name]), token_ids(2, 15)
    losses = both.ours(ids, labels=ids).loss, both.theirs(ids, labels=ids).loss
    wanted = dict(both.theirs.named_parameters())
    ours = dict(both.ours.named_parameters())
    assert ours.keys() == wanted.keys()
    for gradients in zip(
        torch.autograd.grad(losses[0], [ours[name] for name in wanted]),
        torch.autograd.grad(losses[1], list(wanted.values())),
        strict=True,
    ):
        assert difference(*gradients) <= 10 * TOLERANCE


@pytest.mark.parametrize("name", ["qwen2-max-window-layers", "qwen2-one-layer", "exaone4-plain", "exaone4-global"])
def test_hidden_states(pair: Callable[..., Pair], name: str) -> None:
    both = pair(BY_NAME[name])
    ids, mask = padded((14, 9), "right")
    with torch.no_grad():
        ours = both.ours(ids, mask, output_hidden_states=True).hidden_states
        theirs = both.theirs(ids, attention_mask=mask, output_hidden_states=True).hidden_states
        assert both.ours(ids, mask).hidden_states is None
    for layer, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        assert difference(our[mask != 0], their[mask != 0]) <= TOLERANCE, layer


@pytest.mark.parametrize("name", ["qwen2-max-window-layers", "exaone4-plain", "exaone4-rope-llama3"])
def test_present_is_the_past_of_transformers(pair: Callable[..., Pair], name: str) -> None:
    """Keys and values [B, K, T, E], keys rotated; transformers drops what has left the window, intaglio keeps it."""
    both, ids = pair(BY_NAME[name]), token_ids(2, 17)
    with torch.no_grad():
        ours = both.ours(ids).past_key_values
        cache = both.theirs(ids, use_cache=True).past_key_values
    assert len(ours) == len(cache.layers)
    for (key, value), layer in zip(ours, cache.layers, strict=True):
        assert key.shape == value.shape == (2, 2, 17, 16)
        kept = layer.keys.shape[2]
        assert difference(key[:, :, -kept:], layer.keys) <= TOLERANCE
        assert difference(value[:, :, -kept:], layer.values) <= TOLERANCE
