"""The cause of codes, zero points, scales or offsets that are not the checkpoint's."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ....models.checkpoint import Checkpoint
from ..comparison import Occurrences
from ..expected import Expected
from ..reading.layouts import Weight
from ..reading.stored import BlockPart
from .block_values import describe_block_values
from .comparison import CodeComparison, compare_rows
from .moved import moved_codes
from .source import SourceCodes

FEW = 0.02
"""The share of a weight's codes up to which single codes are wrong."""


def diagnose_codes(
    weight: Weight,
    expected: Expected,
    sources: Sequence[SourceCodes],
    comparison: CodeComparison,
    checkpoint: Checkpoint,
) -> str | None:
    """Return what differs, where, and the likeliest cause; None where nothing differs."""
    if comparison.same:
        return None
    size = min(weight.block_size or 1, weight.shape[1])
    if comparison.mixed and weight.order is None and all(source.place is None for source in sources):
        return f"the graph reads it in blocks of {size}, and the checkpoint has blocks of {sources[0].grid.block_size}"
    if comparison.codes.count:
        where = _where(comparison.codes, expected, weight, 1)
        share = f"{comparison.codes.count:,} of its {expected.elements:,} codes are not the checkpoint's, the first"
        cause = None
        if comparison.codes.count > FEW * expected.elements or comparison.mixed:
            cause = moved_codes(weight, sources, comparison.codes.row, checkpoint)
        own = _own_code(weight, sources, comparison.codes)
        return f"{cause}; {share} in {where}" if cause else f"{share} in {where}{own}"
    if comparison.zero_points.count:
        return _diagnose_zero_points(weight, expected, sources, comparison)
    what = "scale" if comparison.scales.count else "offset"
    found = comparison.scales if comparison.scales.count else comparison.offsets
    stored, wanted, others = _block_values(what, weight, sources, checkpoint)
    cause = describe_block_values(f"{what}s", stored, wanted, others)
    where = _where(found, expected, weight, size)
    text = f"{found.count:,} of its {comparison.blocks:,} {what}s are not the checkpoint's, the first in {where}"
    if cause:
        return f"{cause}; {text}"
    block = found.column // size
    return (
        f"{text}: {float(stored[found.row, block]):.8g}, and the checkpoint has {float(wanted[found.row, block]):.8g}"
    )


def _where(found: Occurrences, expected: Expected, weight: Weight, size: int) -> str:
    last = min(found.column + size, weight.shape[1]) - 1
    columns = f"column {found.column:,}" if size == 1 else f"columns {found.column:,} to {last:,}"
    return f"{expected.describe_row(found.row)}, {columns}{' of those sorted by group' if weight.order else ''}"


def _own_code(weight: Weight, sources: Sequence[SourceCodes], found: Occurrences) -> str:
    """Return the first code that differs, and the checkpoint's."""
    source = next(s for s in sources if found.row < s.first + s.shape[0])
    row = range(found.row - source.first, found.row - source.first + 1)
    column = int(source.columns(weight.order)[found.column])
    block = source.blocks(torch.tensor([column]))
    own = int(source.grid.codes(row)[0, column]) - int(source.parameters.zero_points[row.start, block])
    part = weight.read(range(found.row, found.row + 1), range(weight.shape[1]))
    assert isinstance(part, BlockPart)
    return f": {int(part.codes[0, found.column]):+d} steps from zero, and the checkpoint has {own:+d}"


def _diagnose_zero_points(
    weight: Weight, expected: Expected, sources: Sequence[SourceCodes], comparison: CodeComparison
) -> str:
    found, size = comparison.zero_points, min(weight.block_size or 1, weight.shape[1])
    step, times = comparison.steps.most_common(1)[0]
    mostly = "" if times == sum(comparison.steps.values()) else "mostly "
    where = _where(found, expected, weight, size)
    text = f"the zero point is off by {mostly}{step:+d} in {found.count:,} of its {comparison.blocks:,} blocks"
    gptq = any(source.format.startswith("GPTQ") for source in sources)
    cause = ""
    if gptq and abs(step) == 1 and found.count > comparison.blocks / 2:
        was = "was not added" if step < 0 else "was added to a file that stores them whole (v2)"
        cause = f": GPTQ's first format stores zero points less one, and the one {was}"
    elif mostly:
        stored, wanted = _zero_points(weight, sources)
        described = describe_block_values("zero points", stored, wanted, ())
        cause = f": {described}" if described else ""
    return f"{text}{cause}; the first is in {where}"


def _zero_points(weight: Weight, sources: Sequence[SourceCodes]) -> tuple[Tensor, Tensor]:
    """Return the zero points [N, KB] of the weight and of its sources."""
    parts = [compare_rows(weight, source, rows) for source in sources for rows in source.chunks()]
    return torch.cat([part.zero_points for part in parts]), torch.cat([part.wanted_zero_points for part in parts])


def _block_values(
    what: str, weight: Weight, sources: Sequence[SourceCodes], checkpoint: Checkpoint
) -> tuple[Tensor, Tensor, list[tuple[str, Tensor]]]:
    """Return the scales (offsets) [N, KB] of the weight, those of its sources, and those of tensors of their shape."""
    stored, wanted = [], []
    for source in sources:
        for rows in source.chunks():
            part = compare_rows(weight, source, rows)
            stored.append(part.scales if what == "scale" else part.offsets)
            wanted.append(part.wanted_scales if what == "scale" else part.wanted_offsets)
    others = []
    if len(sources) == 1:
        for name, quantized in checkpoint.quantized.items():
            grid = quantized.grid
            if name != sources[0].name and grid is not None and quantized.info.shape == sources[0].shape:
                parameters = grid.parameters()
                values = parameters.scales if what == "scale" else parameters.offsets
                if values is not None:
                    others.append((name, values))
    return torch.cat(stored), torch.cat(wanted), others
