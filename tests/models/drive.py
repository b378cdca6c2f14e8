"""Runs a native module and its transformers counterpart over the same tokens, in one piece or in several."""

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
        """transformers' module without a trace of earlier runs: its dynamic RoPE remembers the longest of them."""
        return copy.deepcopy(self.theirs) if self.variant.length_dependent else self.theirs


def open_pair(folder: Path, variant: Variant, task: str, **changes: object) -> Pair:
    """Write the variant's random checkpoint for a task into ``folder`` and open it with both."""
    values = tiny.config(
        variant.family, task, spelling=variant.spelling, rope=variant.rope, **{**variant.changes, **changes}
    )
    tiny.write(folder, values)
    kind = getattr(transformers, values["architectures"][0])
    told = None
    if variant.told is not None:
        told = kind.config_class.from_dict({**values, **variant.told})
    theirs = kind.from_pretrained(folder, config=told, dtype=torch.float32, attn_implementation="eager").eval()
    return Pair(folder, variant, Checkpoint(folder).load(), theirs)


def token_ids(rows: int, length: int, seed: int = 0) -> Tensor:
    """Random ids [rows, length], none of them special."""
    return torch.randint(3, 288, (rows, length), generator=torch.Generator().manual_seed(seed))


def padded(lengths: Sequence[int], side: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Ids and mask [B, S] of rows of these lengths, padded to the longest on the ``left`` or the ``right``."""
    longest = max(lengths)
    place = torch.arange(longest)[None]
    length = torch.tensor(lengths)[:, None]
    mask = (place >= longest - length) if side == "left" else (place < length)
    return token_ids(len(lengths), longest, seed).where(mask, torch.tensor(PAD)), mask.long()


def split(ids: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """The ids cut into pieces of these many positions; the last sizes may repeat 1 for decode steps."""
    assert sum(sizes) == ids.shape[1]
    return list(torch.split(ids, list(sizes), 1))


def positions_of(mask: Tensor) -> Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)


@torch.no_grad()
def run_ours(model: nn.Module, pieces: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
    """Logits [B, T, V] of all pieces, each run after the cached ones before it; mask [B, T] covers all pieces."""
    past, done, logits = None, 0, []
    for piece in pieces:
        done += piece.shape[1]
        output = model(piece, None if mask is None else mask[:, :done], past)
        past = output.past_key_values
        logits.append(output.logits)
    return torch.cat(logits, 1)


@torch.no_grad()
def run_theirs(model: Any, pieces: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
    """As ``run_ours``, by transformers with its DynamicCache, the positions counted along the mask."""
    done, logits = 0, []
    # transformers 5.24 gave it another name
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    cache = {name: transformers.DynamicCache(config=model.config)}
    for piece in pieces:
        seen, done = done, done + piece.shape[1]
        extra = {}
        if mask is not None:
            extra = {
                "attention_mask": mask[:, :done],
                "position_ids": positions_of(mask[:, :done])[:, seen:],
            }
        logits.append(model(piece, use_cache=True, **cache, **extra).logits)
    return torch.cat(logits, 1)


def run_rows_alone(pair: Pair, pieces: Sequence[Tensor], mask: Tensor) -> list[Tensor]:
    """transformers on each row by itself, without its padding: what a row means, whatever batch it is in."""
    masks = torch.split(mask, [piece.shape[1] for piece in pieces], 1)
    results = []
    for row in range(mask.shape[0]):
        tokens = [piece[row][kept[row] != 0][None] for piece, kept in zip(pieces, masks, strict=True)]
        results.append(run_theirs(pair.fresh(), [piece for piece in tokens if piece.shape[1]])[0])
    return results


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, as a fraction of the largest reference value."""
    assert ours.shape == theirs.shape
    assert torch.isfinite(theirs).all()
    return float((ours - theirs).abs().max() / theirs.abs().max())
