"""What the wrong rows of a stored weight hold instead: the source's numbers changed or moved, or another tensor's."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...models.checkpoint import Checkpoint
from .expected import Expected
from .folds import EPSILON
from .reading.layouts import Weight
from .reading.stored import FloatWeight

SAMPLE = 32
"""The number of wrong rows that are looked at."""

MAX_WHOLE = 1 << 27
"""The largest tensor, in numbers, that is read as a whole to try another layout."""

MATCHED = 0.8
"""The share of rows (columns) that must be found at another index."""

Alike = Callable[[Tensor, Tensor], bool]


def diagnose_rows(weight: Weight, expected: Expected, rows: Sequence[int], checkpoint: Checkpoint) -> str | None:
    """Return what the wrong rows of a weight hold; None where that is not known.

    Args:
        rows: the wrong rows, in ascending order.
    """
    per_source = max(8, SAMPLE // len(expected.sources))
    sample = [rows[i] for _, indices in _by_source(expected, rows) for i in indices[:per_source]]
    sample = sample if not expected.is_vector else [0]
    stored, source = _stored_rows(weight, sample), expected.select_rows(sample)
    alike = _alike_but_for_rounding(weight)
    subject = _describe_rows(expected, rows)
    cause = _changed(weight, stored, source, alike)
    if cause is not None:
        return f"{subject} {cause}"
    if stored.shape[1] % 2 == 0 and alike(stored.view(len(stored), -1, 2).flip(2).flatten(1), source):
        return f"in {subject} neighbouring columns are swapped, as by the wrong order of nibbles"
    for hypothesis in (_another_layout, _another_tensor, _other_rows, _other_columns):
        found: str | None = hypothesis(expected, sample, stored, alike, checkpoint)
        if found is not None:
            return f"{subject} {found}"
    if stored.shape[0] == 1 and alike(stored.sort().values, source.sort().values):
        return f"{subject} are the source's in a different order"
    return None


def _changed(weight: Weight, stored: Tensor, source: Tensor, alike: Alike) -> str | None:
    """Return how the rows follow from the source's by arithmetic."""
    if not stored.any():
        return "are zeros"
    if alike(stored, -source):
        return "have the opposite sign"
    factor = ((stored * source).sum() / source.square().sum()).item()
    if abs(factor) > 0.05 and abs(factor - 1) > 0.01 and alike(stored, factor * source):
        return f"are {factor:.4g} times the source's"
    difference = (stored - source).mean().item()
    if abs(difference) > 1e-3 and alike(stored, source + difference):
        return f"are the source's {'plus' if difference > 0 else 'minus'} {abs(difference):.4g}"
    for dtype, name in ((torch.float16, "fp16"), (torch.bfloat16, "bf16")):
        if isinstance(weight, FloatWeight) and torch.equal(stored, source.to(dtype).float()):
            return f"are the source's rounded to {name}"
    return None


def _alike_but_for_rounding(weight: Weight) -> Alike:
    """Return a function that checks that numbers are the same but for the weight's rounding."""
    limit = 2 * EPSILON[weight.dtype] if isinstance(weight, FloatWeight) else 0.5

    def alike(actual: Tensor, expected: Tensor) -> bool:
        squares = expected.square().sum().item()
        if actual.shape != expected.shape or squares <= 0:
            return False
        return (actual - expected).square().sum().item() < limit**2 * squares

    return alike


def _describe_rows(expected: Expected, rows: Sequence[int]) -> str:
    if expected.is_vector or len(rows) == expected.shape[0]:
        return "its numbers" if expected.is_vector else "all of its rows"
    for source in expected.sources:
        if list(rows) == list(expected.span(source)):
            return f"the rows of {source}"
    first, last = rows[0], rows[-1]
    between = "" if last - first + 1 == len(rows) else "between "
    named = f"{expected.describe_row(first)} to row {last - _start_of_source(expected, last):,}"
    return f"{len(rows):,} of its {expected.shape[0]:,} rows, {between}{named},"


def _start_of_source(expected: Expected, row: int) -> int:
    return next(expected.span(source).start for source in expected.sources if row in expected.span(source))


def _stored_rows(weight: Weight, rows: Sequence[int]) -> Tensor:
    """Return some rows [n, K]; consecutive ones are read at once."""
    runs: list[range] = []
    for row in rows:
        if runs and runs[-1].stop == row:
            runs[-1] = range(runs[-1].start, row + 1)
        else:
            runs.append(range(row, row + 1))
    values = torch.cat([weight.read(run, range(weight.shape[1])).values for run in runs])
    return torch.where(values.isfinite(), values, 0.0)


def _by_source(expected: Expected, rows: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Return for each source the indices into ``rows`` of its rows."""
    spans = [(source, expected.span(source)) for source in expected.sources]
    return [(source, [i for i, row in enumerate(rows) if row in span]) for source, span in spans]


def _another_layout(
    expected: Expected, rows: Sequence[int], stored: Tensor, alike: Alike, checkpoint: Checkpoint
) -> str | None:
    if expected.is_vector:
        return None
    columns = expected.shape[1]
    for source, indices in _by_source(expected, rows):
        shape = checkpoint.tensors[source].shape
        own = torch.tensor([rows[i] for i in indices]) - expected.span(source).start
        if not indices or shape[0] * shape[1] > MAX_WHOLE:
            continue
        whole = expected.of([source]).whole()
        if shape[0] == columns and alike(stored[indices], whole.t()[own]):
            return f"are those of {source} transposed"
        if shape[0] != columns and alike(stored[indices], whole.reshape(columns, shape[0]).t()[own]):
            return f"are those of {source} in its own layout, read as if transposed"
        if shape[0] != columns and alike(stored[indices], whole.t().reshape(shape)[own]):
            return f"are those of {source} transposed, read as if not transposed"
    return None


def _another_tensor(
    expected: Expected, rows: Sequence[int], stored: Tensor, alike: Alike, checkpoint: Checkpoint
) -> str | None:
    if expected.is_vector:
        parts = [(source, list(expected.span(source))) for source in expected.sources]
    else:
        parts = [(source, indices) for source, indices in _by_source(expected, rows) if indices]
    found = []
    for source, indices in parts:
        first = expected.span(source).start
        if expected.is_vector:
            actual, own = stored[:, indices], [0]
        else:
            actual, own = stored[indices], [rows[i] - first for i in indices]
        for name, info in checkpoint.tensors.items():
            if info.shape != checkpoint.tensors[source].shape or name == source or len(info.shape) > 2:
                continue
            if alike(actual, expected.of([name]).select_rows(own)):
                found.append(name)
                break
    if not found:
        return None
    tied = found[0].endswith("embed_tokens.weight") and expected.sources[0] == "lm_head.weight"
    reason = ": the head is the embedding, and config.json has tie_word_embeddings = false" if tied else ""
    return f"are those of {', '.join(found)}{reason}"


def _other_rows(
    expected: Expected, rows: Sequence[int], stored: Tensor, alike: Alike, checkpoint: Checkpoint
) -> str | None:
    if expected.is_vector or expected.shape[0] < 2:
        return None
    best, nearest = torch.full((len(rows),), -1.0), torch.zeros(len(rows), dtype=torch.int64)
    normed = torch.nn.functional.normalize(stored, dim=1)
    for span, _, part in expected.chunks(by_columns=False):
        cosine, index = (normed @ torch.nn.functional.normalize(part, dim=1).t()).max(1)
        nearest = torch.where(cosine > best, index + span.start, nearest)
        best = torch.maximum(cosine, best)
    indices = nearest.tolist()
    distinct = sorted(set(indices))
    source = expected.select_rows(distinct)
    order = {row: i for i, row in enumerate(distinct)}
    matched = [alike(stored[i : i + 1], source[order[row] : order[row] + 1]) for i, row in enumerate(indices)]
    if sum(matched) < MATCHED * len(rows) or indices == list(rows):
        return None
    here, there = next((rows[i], indices[i]) for i, match in enumerate(matched) if match and indices[i] != rows[i])
    holds = f"{expected.describe_row(here)} holds {expected.describe_row(there)}"
    return f"are other rows of the source: {holds}{_describe_heads(expected, here, there)}"


def _describe_heads(expected: Expected, here: int, there: int) -> str:
    """Return which heads are exchanged, where the rows of whole heads are."""
    size = expected.checkpoint.config.head_dim
    own, other = here - _start_of_source(expected, here), there - _start_of_source(expected, there)
    if not any(f"{name}_proj" in expected.sources[0] for name in "qkv") or (own - other) % size:
        return ""
    return f" (head {other // size} where head {own // size} belongs)"


def _other_columns(
    expected: Expected, rows: Sequence[int], stored: Tensor, alike: Alike, checkpoint: Checkpoint
) -> str | None:
    if expected.is_vector or len(rows) < 8:
        return None
    source = expected.select_rows(rows)
    actual, wanted = (torch.nn.functional.normalize(x.t(), dim=1) for x in (stored, source))
    cosines, nearest = zip(*((part @ wanted.t()).max(1) for part in torch.split(actual, 1024)), strict=True)
    found, cosine = torch.cat(nearest), torch.cat(cosines)
    moved = found != torch.arange(len(found))
    if (cosine > 0.9).float().mean() < MATCHED or not moved.any():
        return None
    column = int(moved.nonzero()[0])
    return f"have their columns in a different order: column {column:,} holds column {int(found[column]):,}"
