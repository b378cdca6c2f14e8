"""What wrong codes of a weight are: the checkpoint's in another order, another tensor's, or read otherwise.

Rows and columns of codes are found again by their contents, so that any order is recognized.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ....models.checkpoint import Checkpoint
from ..reading.layouts import Weight
from ..reading.stored import BlockPart
from .source import SourceCodes

SAMPLE = 64
"""The number of rows that are looked at."""

MATCHED = 0.9
"""The share of the rows, the columns or the codes that a cause must explain."""

MAX_WHOLE = 1 << 27
"""The largest tensor, in codes, that is read as a whole to find rows of it."""

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""The order in which AWQ packs eight codes into a word (AutoAWQ's ``AWQ_PACK_ORDER``)."""


def moved_codes(weight: Weight, sources: Sequence[SourceCodes], row: int, checkpoint: Checkpoint) -> str | None:
    """Return what the codes from ``row`` on are; None where that is not known."""
    source = next(s for s in sources if row < s.first + s.shape[0])
    start = (row - source.first) // len(AWQ_ORDER) * len(AWQ_ORDER)
    rows = range(start, min(start + SAMPLE, source.shape[0]))
    part = weight.read(range(source.first + rows.start, source.first + rows.stop), range(weight.shape[1]))
    assert isinstance(part, BlockPart)
    columns = source.columns(weight.order)
    zeros = source.parameters.zero_points[rows.start : rows.stop][:, source.blocks(columns)]
    # Unsigned codes, as a file holds them; in more bits than the checkpoint's, their zero point may be elsewhere.
    codes = part.codes - part.low
    if codes.max() >= 2**source.grid.bits:
        codes = codes + part.low + zeros
    stored = codes.round().to(torch.int16)
    own = source.grid.codes(rows).to(torch.int16)
    wanted = own[:, columns]
    if stored.min() == stored.max():
        return f"all of its codes are {int(stored[0, 0])}"
    found = _changed(stored, wanted, part.bits)
    found = found or _columns(stored, own, weight, source, checkpoint)
    found = found or _transposed(stored, rows, weight, source)
    found = found or _other_tensor(stored, rows, columns, source, checkpoint)
    return found or _rows(stored, rows, columns, source)


def _alike(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and (first == second).float().mean().item() >= MATCHED


def _changed(stored: Tensor, wanted: Tensor, bits: int) -> str | None:
    """Return how the codes follow from the checkpoint's by arithmetic."""
    middle, top = 2 ** (bits - 1), 2**bits - 1
    if _alike(stored, wanted ^ middle):
        return "the highest bit of its codes is flipped: signed codes are read as unsigned ones, or the reverse"
    if _alike(stored, top - wanted):
        return "its codes are inverted"
    if _alike(stored, (wanted & 15) << 4 | wanted >> 4) and bits == 8:
        return "the halves of its bytes are swapped"
    step = int((stored - wanted).flatten().mode().values)
    if step and _alike(stored, wanted + step):
        return f"its codes are the checkpoint's {step:+d}, and its zero points are not"
    return None


def _columns(stored: Tensor, own: Tensor, weight: Weight, source: SourceCodes, checkpoint: Checkpoint) -> str | None:
    """Return which order the columns are in, where they are the checkpoint's in another one."""
    if len(stored) < 8:
        return None
    found = _find(stored.t(), own.t())
    if found is None:
        return None
    as_stored = torch.arange(len(found))
    wanted = source.columns(weight.order)
    if torch.equal(found, as_stored):
        return _wrong_order(weight, source, checkpoint)
    if source.place is not None and weight.order is not None and torch.equal(found, source.place):
        return "its columns are not sorted by group (act-order), and the activations are"
    pairs = torch.arange(len(found))
    if len(found) % 2 == 0 and torch.equal(found, wanted[pairs ^ 1]):
        return "neighbouring columns are swapped: the halves of its bytes are in the wrong order"
    if _is_packing(found, wanted):
        return "each eight columns are in the order in which AWQ packs them"
    moved = (found != wanted).nonzero().flatten()
    if not len(moved):
        return None
    column = int(moved[0])
    return (
        f"its columns are in a different order: column {column:,} has the codes that the checkpoint stores in column "
        f"{int(found[column]):,}, not in {int(wanted[column]):,}"
    )


def _wrong_order(weight: Weight, source: SourceCodes, checkpoint: Checkpoint) -> str | None:
    """Return what is wrong with the order of the activations, where the codes are as the checkpoint stores them."""
    order = source.grid.order
    if order is None:
        return "the graph gathers its activations, and the checkpoint's columns are in their own order"
    if weight.order is None:
        return (
            "its columns are sorted by group (act-order), and the graph does not gather the activations in that order"
        )
    taken = torch.tensor(weight.order)
    if torch.equal(taken, source.place if source.place is not None else order):
        return "the order of the activations is inverted: they are gathered by the place of each column (act-order)"
    for name, other in checkpoint.quantized.items():
        if other.grid is not None and other.grid.order is not None and torch.equal(taken, other.grid.order):
            return f"the activations are gathered in the order of {name}"
    moved = (taken != order).nonzero().flatten()
    if not len(moved):
        return None
    column = int(moved[0])
    return (
        f"the activations are gathered in another order than the checkpoint's: column {column:,} is multiplied by "
        f"input {int(taken[column]):,}, and it is that of input {int(order[column]):,}"
    )


def _transposed(stored: Tensor, rows: range, weight: Weight, source: SourceCodes) -> str | None:
    height, width = source.shape
    if weight.order is not None or height * width > MAX_WHOLE:
        return None
    whole = source.grid.codes(range(height)).to(torch.int16)
    if height == width and _alike(stored, whole.t()[rows.start : rows.stop]):
        return "its codes are the checkpoint's transposed"
    if height != width and _alike(stored, whole.reshape(width, height).t()[rows.start : rows.stop]):
        return "its codes are the checkpoint's in their own layout, read as if transposed"
    if height != width and _alike(stored, whole.t().reshape(height, width)[rows.start : rows.stop]):
        return "its codes are the checkpoint's transposed, read as if not transposed"
    return None


def _other_tensor(
    stored: Tensor, rows: range, columns: Tensor, source: SourceCodes, checkpoint: Checkpoint
) -> str | None:
    for name, other in checkpoint.quantized.items():
        if name == source.name or other.grid is None or other.info.shape != source.shape:
            continue
        codes = other.grid.codes(rows).to(torch.int16)
        if _alike(stored, codes) or _alike(stored, codes[:, columns]):
            return f"its codes are those of {name}"
    return None


def _rows(stored: Tensor, rows: range, columns: Tensor, source: SourceCodes) -> str | None:
    height, width = source.shape
    if height * width > MAX_WHOLE or len(stored) < 2:
        return None
    found = _find(stored, source.grid.codes(range(height))[:, columns].to(torch.int16))
    if found is None:
        return None
    own = torch.arange(rows.start, rows.stop)
    moved = (found != own).nonzero().flatten()
    if not len(moved):
        return None
    if rows.start % 8 == 0 and len(rows) % 8 == 0 and _is_packing(found, own):
        return "each eight rows are in the order in which AWQ packs them"
    row = int(moved[0])
    return f"its rows are in a different order: row {rows.start + row:,} has the codes of row {int(found[row]):,}"


def _find(stored: Tensor, known: Tensor) -> Tensor | None:
    """Return for each of ``stored`` [n, m] the index of the same codes in ``known`` [N, m].

    Those that are not known, or that occur twice, keep their own index; None where too few are found.
    """
    index: dict[bytes, int] = {}
    double: set[bytes] = set()
    for place, key in enumerate(_keys(known)):
        if index.setdefault(key, place) != place:
            double.add(key)
    found, matched = [], 0
    for place, key in enumerate(_keys(stored)):
        there = index.get(key)
        matched += there is not None
        found.append(place if there is None or key in double else there)
    return torch.tensor(found) if matched >= MATCHED * len(found) else None


def _keys(codes: Tensor) -> Iterator[bytes]:
    return (row.numpy().tobytes() for row in codes.contiguous())


def _is_packing(found: Tensor, own: Tensor) -> bool:
    """Check that each eight are in AWQ's order, or in the one that undoes it."""
    if len(found) % 8:
        return False
    order = torch.tensor(AWQ_ORDER)
    eights = own.view(-1, 8)
    return any(torch.equal(found.view(-1, 8), eights[:, some]) for some in (order, order.argsort()))
