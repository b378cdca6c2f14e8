"""The ways in which a layer is tried: what is new, what is behind it in the cache, and what is padding."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...artifact import Manifest
from ...contract import ATTENTION_MASK, CACHE_PARTS, INPUT_IDS, LOGITS_TO_KEEP, PAST
from ...models import ops
from ...models.ops import KeyValue
from ...models.rope import RotaryEmbedding
from .places import Place

PROMPT = 256
"""How many tokens of a longer text a prompt has, where later tokens are tried behind a cache."""
CHUNK = 8
"""New tokens behind a cache."""


@dataclass(frozen=True, eq=False)
class Batch:
    """New tokens ``ids`` [B, S] behind ``past_ids`` [B, P]; ``mask`` [B, P + S] is 1 on tokens and 0 on padding.

    ``what`` says in words how the model is run, and ``only`` when a fault shows here and not in the batches before.
    """

    name: str
    what: str
    past_ids: Tensor
    ids: Tensor
    mask: Tensor

    @property
    def past(self) -> int:
        return self.past_ids.shape[1]

    @property
    def new(self) -> Tensor:
        """bool [B, S]: the new tokens that are no padding."""
        return self.mask[:, self.past :] != 0

    @property
    def padded(self) -> bool:
        return not bool(self.mask.all())


def batches(tokens: Tensor, manifest: Manifest) -> tuple[Batch, ...]:
    """A prompt; behind a cache, several tokens and one; rows of different lengths.

    Args:
        tokens: int64 [1, S].
    """
    generates = manifest.task == "text-generation"
    size = tokens.shape[1]
    found = [_plain("prompt", "a prompt", tokens[:, : PROMPT if generates else size], 0)]
    if generates and size > CHUNK + 1:
        found.append(_plain("chunk", "several new tokens behind a cache", tokens, size - CHUNK))
    if generates and size > 1:
        found.append(_plain("decode", "one new token behind a cache", tokens, size - 1))
    if size < 4:
        return tuple(found)
    if generates:
        found.append(_ragged_decode(tokens[:, :PROMPT]))
    elif manifest.task != "text-classification" or manifest.model.pad_token_id is not None:
        found.append(_padded(tokens[:, :PROMPT], manifest, left=False))
    if manifest.target == "standard" and (generates or len(found) > 1):
        found.append(_padded(tokens[:, :PROMPT], manifest, left=True))
    return tuple(found)


def _plain(name: str, what: str, tokens: Tensor, past: int) -> Batch:
    return Batch(name, what, tokens[:, :past], tokens[:, past:], torch.ones_like(tokens))


def _padded(tokens: Tensor, manifest: Manifest, *, left: bool) -> Batch:
    """A row, and its second half padded to its length."""
    size = tokens.shape[1]
    gap = size // 2
    text, padding = tokens[0, gap:], tokens.new_full((gap,), manifest.model.pad_token_id or 0)
    second, valid = (padding, text), (torch.zeros_like(padding), torch.ones_like(text))
    if not left:
        second, valid = second[::-1], valid[::-1]
    mask = torch.stack([torch.ones_like(tokens[0]), torch.cat(valid)])
    ids = torch.stack([tokens[0], torch.cat(second)])
    side = "left" if left else "right"
    return Batch(f"padded {side}", f"a batch padded on the {side}", ids[:, :0], ids, mask)


def _ragged_decode(tokens: Tensor) -> Batch:
    """One new token in each of two rows, behind caches of different length."""
    past = tokens.shape[1] - 1
    short = past // 2
    mask = torch.ones(2, past + 1, dtype=torch.int64)
    mask[1, short:past] = 0
    ids = tokens.expand(2, -1)
    return Batch(
        "ragged decode", "one new token in each of two rows of different length", ids[:, :-1], ids[:, -1:], mask
    )


@dataclass
class Trail:
    """A batch on its way through the source's layers: the hidden states of the past and of the new tokens."""

    batch: Batch
    rotary: RotaryEmbedding
    past_hidden: Tensor
    hidden: Tensor
    past_plan: Any = field(init=False)
    plan: Any = field(init=False)

    def __post_init__(self) -> None:
        batch = self.batch
        self.past_plan = ops.plan(batch.past_ids, batch.mask[:, : batch.past], 0, self.rotary) if batch.past else None
        self.plan = ops.plan(batch.ids, batch.mask, batch.past, self.rotary)

    def step(self, layer: nn.Module, places: tuple[Place, ...]) -> "Step":
        """Go through a layer, and keep what was seen there."""
        past = None
        given = self.hidden
        if self.batch.past:
            self.past_hidden, past = layer(self.past_hidden, None, self.past_plan)
        with Record(layer, places) as record:
            self.hidden, present = layer(self.hidden, past, self.plan)
        return Step(self.batch, self.plan, given, record.values, past, present)


@dataclass(frozen=True, eq=False)
class Step:
    """What the source computes in a layer from a batch: ``values`` by place, [B, S, ...]; ``hidden`` went in, ``past``
    and ``present`` are the layer's cache before and after."""

    batch: Batch
    plan: Any
    hidden: Tensor
    values: Mapping[str, Tensor]
    past: KeyValue | None = None
    present: KeyValue | None = None


class Record:
    """``with Record(layer, places) as record:`` notes the values of the places while the layer runs."""

    def __init__(self, layer: nn.Module, places: tuple[Place, ...]) -> None:
        self.values: dict[str, Tensor] = {}
        self._handles = [self._watch(layer.get_submodule(place.seen[1]), place) for place in places]

    def _watch(self, module: nn.Module, place: Place) -> Any:
        if place.seen[0] == "input":

            def before(module: nn.Module, given: tuple[Tensor, ...]) -> None:
                self.values[place.key] = given[0]

            return module.register_forward_pre_hook(before)

        def behind(module: nn.Module, given: object, output: Any) -> None:
            self.values[place.key] = output[0] if isinstance(output, tuple) else output

        return module.register_forward_hook(behind)

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


def feeds(batch: Batch, manifest: Manifest, past: Mapping[int, KeyValue | None]) -> dict[str, NDArray[Any]]:
    """The graph's inputs for a batch; layers whose past is not given get zeros, of which only the shape is taken."""
    model = manifest.model
    shape = (len(batch.ids), model.num_key_value_heads, batch.past, model.head_dim)
    found: dict[str, NDArray[Any]] = {
        INPUT_IDS: np.ascontiguousarray(batch.ids.numpy()),
        ATTENTION_MASK: batch.mask.numpy(),
        LOGITS_TO_KEEP: np.array([0]),
    }
    zeros = np.zeros(shape, model.cache_dtype)
    for index in range(model.num_hidden_layers):
        pair = past.get(index)
        for place, part in enumerate(CACHE_PARTS):
            array = pair[place].numpy().astype(model.cache_dtype) if pair is not None else zeros
            found[f"{PAST}{index}.{part}"] = array
    return found


def relative_error(wanted: Tensor, found: Tensor, rows: Tensor | None = None) -> float:
    """The root mean square of the difference over that of what is wanted, over the positions ``rows`` (bool [B, S]).

    1 where the shapes differ or where ``found`` has NaN or infinite values; never more than 1e6.
    """
    if wanted.shape != found.shape:
        return 1.0
    if rows is not None and rows.shape == wanted.shape[: rows.dim()]:
        wanted, found = wanted[rows], found[rows]
    if not torch.isfinite(found).all():
        return 1.0
    scale = float(wanted.double().square().sum().sqrt())
    difference = float((found.double() - wanted.double()).square().sum().sqrt())
    return min(difference / max(scale, 1e-30), 1e6) if difference else 0.0
