"""Helpers that run a native module and its transformers counterpart over the same tokens, in one chunk or several."""

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests import tiny
from torch import Tensor, nn

from .variants import Variant

TOLERANCE = 2e-5
"""Largest difference allowed, as a fraction of the largest reference value."""

PAD = 0


@dataclass(frozen=True)
class Pair:
    """One checkpoint folder, opened by both."""

    folder: Path
    variant: Variant
    ours: nn.Module
    theirs: Any

    def fresh(self) -> Any:
        """Return transformers' module in its initial state: its dynamic RoPE remembers the longest earlier run."""
        return copy.deepcopy(self.theirs) if self.variant.length_dependent else self.theirs


def open_pair(folder: Path, variant: Variant, task: str, **changes: object) -> Pair:
    """Write the variant's random checkpoint for a task into ``folder`` and open it with both."""
    values = tiny.config(
        variant.family, task, spelling=variant.spelling, rope=variant.rope, **{**variant.changes, **changes}
    )
    tiny.write(folder, values)
    kind = getattr(transformers, values["architectures"][0])
    config = None
    if variant.theirs is not None:
        config = kind.config_class.from_dict({**values, **variant.theirs})
    theirs = kind.from_pretrained(folder, config=config, dtype=torch.float32, attn_implementation="eager").eval()
    return Pair(folder, variant, Checkpoint(folder).load(), theirs)


def token_ids(rows: int, length: int, seed: int = 0) -> Tensor:
    """Return random ids [rows, length], none of them special."""
    return torch.randint(3, 288, (rows, length), generator=torch.Generator().manual_seed(seed))


def padded(lengths: Sequence[int], side: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return ids and mask [B, S] of sequences of these lengths, padded on the ``left`` or the ``right``."""
    longest = max(lengths)
    place = torch.arange(longest)[None]
    length = torch.tensor(lengths)[:, None]
    mask = (place >= longest - length) if side == "left" else (place < length)
    return token_ids(len(lengths), longest, seed).where(mask, torch.tensor(PAD)), mask.long()


def split(ids: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Split the ids into chunks of these many positions; the last sizes may repeat 1 for decode steps."""
    assert sum(sizes) == ids.shape[1]
    return list(torch.split(ids, list(sizes), 1))


def positions_of(mask: Tensor) -> Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)


@torch.no_grad()
def run_ours(model: nn.Module, chunks: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
    """Return the logits [B, T, V] of all chunks, each run after those before it; mask [B, T] covers all."""
    past, done, logits = None, 0, []
    for chunk in chunks:
        done += chunk.shape[1]
        output = model(chunk, None if mask is None else mask[:, :done], past_key_values=past)
        past = output.past_key_values
        logits.append(output.logits)
    return torch.cat(logits, 1)


def cache_name(model: Any) -> str:
    """Return the name of transformers' argument for the past, which 5.24 changed."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


@torch.no_grad()
def run_theirs(model: Any, chunks: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
    """Do as ``run_ours`` with transformers and its DynamicCache; the positions are counted along the mask."""
    done, logits = 0, []
    cache = {cache_name(model): transformers.DynamicCache(config=model.config)}
    for chunk in chunks:
        seen, done = done, done + chunk.shape[1]
        extra = {}
        if mask is not None:
            extra = {
                "attention_mask": mask[:, :done],
                "position_ids": positions_of(mask[:, :done])[:, seen:],
            }
        logits.append(model(chunk, use_cache=True, **cache, **extra).logits)
    return torch.cat(logits, 1)


def run_rows_alone(pair: Pair, chunks: Sequence[Tensor], mask: Tensor) -> list[Tensor]:
    """Run transformers on each sequence alone, without its padding."""
    masks = torch.split(mask, [chunk.shape[1] for chunk in chunks], 1)
    results = []
    for row in range(mask.shape[0]):
        tokens = [chunk[row][kept[row] != 0][None] for chunk, kept in zip(chunks, masks, strict=True)]
        results.append(run_theirs(pair.fresh(), [chunk for chunk in tokens if chunk.shape[1]])[0])
    return results


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference, as a fraction of the largest reference value."""
    assert ours.shape == theirs.shape
    assert torch.isfinite(theirs).all()
    return float((ours - theirs).abs().max() / theirs.abs().max())
