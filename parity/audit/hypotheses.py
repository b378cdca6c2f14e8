"""Whose numbers a stored weight holds, if not its source's: nobody's, another tensor's, or its own in another place."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...models.checkpoint import Checkpoint
from .expected import Expected
from .folds import ROUNDING
from .layouts import Weight
from .stored import FloatWeight

SAMPLE = 32
"""Rows that are looked at."""

WHOLE = 1 << 27
"""Numbers of a tensor that may be in memory to try out another layout."""

MATCHED = 0.8
"""The share of rows (columns) that must be found elsewhere."""


def likeness(weight: Weight, expected: Expected, rows: Sequence[int], checkpoint: Checkpoint) -> str | None:
    """What the rows at fault hold; None where that cannot be told.

    Args:
        rows: those at fault, in order.
    """
    few = max(8, SAMPLE // len(expected.sources))
    sample = [row for _, places in _parts(expected, rows) for row in [rows[i] for i in places][:few]]
    sample = sample if not expected.vector else [0]
    stored, source = _stored(weight, sample), _picked(expected, sample)
    alike = _closeness(weight)
    which = _which(expected, rows)
    if not stored.any():
        return f"{which} are zeros"
    if alike(stored, -source):
        return f"{which} have the opposite sign"
    factor = ((stored * source).sum() / source.square().sum()).item()
    if abs(factor) > 0.05 and abs(factor - 1) > 0.01 and alike(stored, factor * source):
        return f"{which} are {factor:.4g} times the source's"
    difference = (stored - source).mean().item()
    if abs(difference) > 1e-3 and alike(stored, source + difference):
        return f"{which} are the source's {'plus' if difference > 0 else 'minus'} {abs(difference):.4g}"
    for dtype in (torch.float16, torch.bfloat16):
        if isinstance(weight, FloatWeight) and torch.equal(stored, source.to(dtype).float()):
            return f"{which} are the source's rounded to {'fp16' if dtype == torch.float16 else 'bf16'}"
    if stored.shape[1] % 2 == 0 and alike(stored.view(len(stored), -1, 2).flip(2).flatten(1), source):
        return f"in {which} each two neighbours are exchanged, as by the wrong order of halves of bytes"
    for explanation in (_another_layout, _another_tensor, _other_rows, _other_columns):
        found: str | None = explanation(expected, sample, stored, alike, checkpoint)
        if found is not None:
            return f"{which} {found}"
    if stored.shape[0] == 1 and alike(stored.sort().values, source.sort().values):
        return f"{which} are the source's in another order"
    return None


Alike = Callable[[Tensor, Tensor], bool]


def _closeness(weight: Weight) -> Alike:
    """Whether numbers are the same, but for rounding."""
    limit = 2 * ROUNDING[weight.dtype] if isinstance(weight, FloatWeight) else 0.5

    def alike(ours: Tensor, theirs: Tensor) -> bool:
        power = theirs.square().sum().item()
        return ours.shape == theirs.shape and power > 0 and (ours - theirs).square().sum().item() < limit**2 * power

    return alike


def _which(expected: Expected, rows: Sequence[int]) -> str:
    """The rows at fault in words."""
    if expected.vector or len(rows) == expected.shape[0]:
        return "its numbers" if expected.vector else "all of its rows"
    for source in expected.sources:
        place = expected.place(source)
        if list(rows) == list(place):
            return f"the rows of {source}"
    first, last = rows[0], rows[-1]
    together = "" if last - first + 1 == len(rows) else "between "
    named = f"{expected.named(first)} to row {last - _start(expected, last):,}"
    return f"{len(rows):,} of its {expected.shape[0]:,} rows, {together}{named},"


def _start(expected: Expected, row: int) -> int:
    return next(expected.place(source).start for source in expected.sources if row in expected.place(source))


def _stored(weight: Weight, rows: Sequence[int]) -> Tensor:
    """Some rows [n, K]; those that follow each other are read at once."""
    runs: list[range] = []
    for row in rows:
        if runs and runs[-1].stop == row:
            runs[-1] = range(runs[-1].start, row + 1)
        else:
            runs.append(range(row, row + 1))
    values = torch.cat([weight.read(run, range(weight.shape[1])).values for run in runs])
    return torch.where(values.isfinite(), values, 0.0)


def _picked(expected: Expected, rows: Sequence[int]) -> Tensor:
    """Some rows [n, K] of the source, in order."""
    if expected.vector:
        return expected.whole()
    found, wanted = [], torch.tensor(rows)
    for place, _, part in expected.pieces(by_columns=False):
        inside = wanted[(wanted >= place.start) & (wanted < place.stop)]
        found.append(part[inside - place.start])
        if place.stop > rows[-1]:
            break
    return torch.cat(found)


def _parts(expected: Expected, rows: Sequence[int]) -> list[tuple[str, list[int]]]:
    """The rows by source, each counted from the source's first, with their places among the rows."""
    places = [(source, expected.place(source)) for source in expected.sources]
    return [(source, [i for i, row in enumerate(rows) if row in place]) for source, place in places]


def _another_layout(
    expected: Expected, rows: Sequence[int], stored: Tensor, alike: Alike, checkpoint: Checkpoint
) -> str | None:
    if expected.vector:
        return None
    columns = expected.shape[1]
    for source, places in _parts(expected, rows):
        shape = checkpoint.tensors[source].shape
        own = torch.tensor([rows[i] for i in places]) - expected.place(source).start
        if not places or shape[0] * shape[1] > WHOLE:
            continue
        whole = expected.of([source]).whole()
        if shape[0] == columns and alike(stored[places], whole.t()[own]):
            return f"are those of {source} transposed"
        if shape[0] != columns and alike(stored[places], whole.reshape(columns, shape[0]).t()[own]):
            return f"are those of {source} in its own layout, read as if it were stored transposed"
        if shape[0] != columns and alike(stored[places], whole.t().reshape(shape)[own]):
            return f"are those of {source} transposed, read as if they were not"
    return None


def _another_tensor(
    expected: Expected, rows: Sequence[int], stored: Tensor, alike: Alike, checkpoint: Checkpoint
) -> str | None:
    if expected.vector:
        parts = [(source, list(expected.place(source))) for source in expected.sources]
    else:
        parts = [(source, places) for source, places in _parts(expected, rows) if places]
    found = []
    for source, places in parts:
        first = expected.place(source).start
        if expected.vector:
            ours, own = stored[:, places], [0]
        else:
            ours, own = stored[places], [rows[i] - first for i in places]
        for name, info in checkpoint.tensors.items():
            if info.shape != checkpoint.tensors[source].shape or name == source or len(info.shape) > 2:
                continue
            if alike(ours, _picked(expected.of([name]), own)):
                found.append(name)
                break
    if not found:
        return None
    tied = found[0].endswith("embed_tokens.weight") and expected.sources[0] == "lm_head.weight"
    why = ": the head is the embedding, and config.json has tie_word_embeddings = false" if tied else ""
    return f"are those of {', '.join(found)}{why}"


def _other_rows(
    expected: Expected, rows: Sequence[int], stored: Tensor, alike: Alike, checkpoint: Checkpoint
) -> str | None:
    if expected.vector or expected.shape[0] < 2:
        return None
    best, where = torch.full((len(rows),), -1.0), torch.zeros(len(rows), dtype=torch.int64)
    ours = torch.nn.functional.normalize(stored, dim=1)
    for place, _, part in expected.pieces(by_columns=False):
        cosine, at = (ours @ torch.nn.functional.normalize(part, dim=1).t()).max(1)
        where = torch.where(cosine > best, at + place.start, where)
        best = torch.maximum(cosine, best)
    theirs = where.tolist()
    known = _picked(expected, sorted(set(theirs)))
    order = {row: i for i, row in enumerate(sorted(set(theirs)))}
    matched = [alike(stored[i : i + 1], known[order[row] : order[row] + 1]) for i, row in enumerate(theirs)]
    if sum(matched) < MATCHED * len(rows) or theirs == list(rows):
        return None
    here, there = next((rows[i], theirs[i]) for i, hit in enumerate(matched) if hit and theirs[i] != rows[i])
    return f"lie elsewhere: {expected.named(here)} holds {expected.named(there)}{_head(expected, here, there)}"


def _head(expected: Expected, here: int, there: int) -> str:
    """Heads in words, where whole heads are exchanged."""
    size = expected.checkpoint.config.head_dim
    ours, theirs = here - _start(expected, here), there - _start(expected, there)
    if not any(f"{name}_proj" in expected.sources[0] for name in "qkv") or (ours - theirs) % size:
        return ""
    return f" (head {theirs // size} where head {ours // size} belongs)"


def _other_columns(
    expected: Expected, rows: Sequence[int], stored: Tensor, alike: Alike, checkpoint: Checkpoint
) -> str | None:
    if expected.vector or len(rows) < 8:
        return None
    source = _picked(expected, rows)
    ours, theirs = (torch.nn.functional.normalize(x.t(), dim=1) for x in (stored, source))
    cosines, places = zip(*((part @ theirs.t()).max(1) for part in torch.split(ours, 1024)), strict=True)
    found, cosine = torch.cat(places), torch.cat(cosines)
    moved = found != torch.arange(len(found))
    if (cosine > 0.9).float().mean() < MATCHED or not moved.any():
        return None
    column = int(moved.nonzero()[0])
    return f"have their columns in another order: column {column:,} holds column {int(found[column]):,}"
