"""The scenarios that a layer is checked in: new tokens, cached tokens before them, and padding."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...artifact import Manifest

PROMPT = 256
"""Length of the prompt, in tokens; the rest of a longer text is checked with a cache."""
CHUNK = 8
"""New tokens after a cache."""


@dataclass(frozen=True, eq=False)
class Scenario:
    """Tokens that both sides run on.

    Args:
        description: completes "with ..." in a finding, for an error that the scenarios before this one do not show.
        past_ids: cached tokens, int64 [B, P].
        ids: new tokens, int64 [B, S].
        mask: int64 [B, P + S], 1 on tokens and 0 on padding.
    """

    name: str
    description: str
    past_ids: Tensor
    ids: Tensor
    mask: Tensor

    @property
    def past_length(self) -> int:
        return self.past_ids.shape[1]

    @property
    def unpadded(self) -> Tensor:
        """bool [B, S]: the new tokens that are not padding."""
        return self.mask[:, self.past_length :] != 0

    @property
    def has_padding(self) -> bool:
        return not bool(self.mask.all())


def scenarios(tokens: Tensor, manifest: Manifest) -> tuple[Scenario, ...]:
    """Return the scenarios that an artifact supports and the text is long enough for.

    A causal LM gets a prompt, then several tokens and one token after a cache, then one token after caches of
    different length; the other tasks get a text and padded batches.

    Args:
        tokens: int64 [1, S].
    """
    generates = manifest.task == "text-generation"
    size = tokens.shape[1]
    found = [_unpadded("prompt", "a prompt", tokens[:, : PROMPT if generates else size], 0)]
    if generates and size > CHUNK + 1:
        found.append(_unpadded("chunk", "several new tokens after a cache", tokens, size - CHUNK))
    if generates and size > 1:
        found.append(_unpadded("decode", "one new token after a cache", tokens, size - 1))
    if size < 4:
        return tuple(found)
    if generates:
        found.append(_ragged_decode(tokens[:, :PROMPT]))
    elif manifest.task != "text-classification" or manifest.model.pad_token_id is not None:
        found.append(_padded(tokens[:, :PROMPT], manifest, left=False))
    left = manifest.target == "standard" or manifest.model.attention == "bidirectional"
    if left and (generates or len(found) > 1):
        found.append(_padded(tokens[:, :PROMPT], manifest, left=True))
    return tuple(found)


def _unpadded(name: str, description: str, tokens: Tensor, past: int) -> Scenario:
    return Scenario(name, description, tokens[:, :past], tokens[:, past:], torch.ones_like(tokens))


def _padded(tokens: Tensor, manifest: Manifest, *, left: bool) -> Scenario:
    """Return a batch of the text and of its second half, padded to the same length."""
    size = tokens.shape[1]
    gap = size // 2
    text, padding = tokens[0, gap:], tokens.new_full((gap,), manifest.model.pad_token_id or 0)
    second, valid = (padding, text), (torch.zeros_like(padding), torch.ones_like(text))
    if not left:
        second, valid = second[::-1], valid[::-1]
    mask = torch.stack([torch.ones_like(tokens[0]), torch.cat(valid)])
    ids = torch.stack([tokens[0], torch.cat(second)])
    side = "left" if left else "right"
    return Scenario(f"padded {side}", f"a batch padded on the {side}", ids[:, :0], ids, mask)


def _ragged_decode(tokens: Tensor) -> Scenario:
    """Return one new token in each of two sequences with caches of different length."""
    past = tokens.shape[1] - 1
    short = past // 2
    mask = torch.ones(2, past + 1, dtype=torch.int64)
    mask[1, short:past] = 0
    ids = tokens.expand(2, -1)
    description = "one new token in each of two sequences of different length"
    return Scenario("ragged decode", description, ids[:, :-1], ids[:, -1:], mask)
