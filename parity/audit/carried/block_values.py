"""What wrong scales, offsets or zero points [N, KB] of a weight are instead of the checkpoint's."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

MATCHED = 0.9
"""The share of the blocks that a cause must explain."""


def describe_block_values(
    what: str, stored: Tensor, wanted: Tensor, others: Sequence[tuple[str, Tensor]]
) -> str | None:
    """Return how the stored values follow from the wanted ones; None where that is not known.

    Args:
        what: their name in the plural.
        others: those of other tensors, by the tensor's name.
    """
    if stored.shape != wanted.shape:
        return None
    wrong = stored != wanted
    if not stored.any():
        return f"the graph has no {what}, or all are zero"
    for dtype, name in ((torch.float16, "float16"), (torch.bfloat16, "bfloat16")):
        if torch.equal(stored, wanted.to(dtype).float()):
            return f"the {what} are the checkpoint's rounded to {name}"
    if bool((stored == -wanted)[wrong].all()):
        return f"the sign of the {what} is flipped"
    for text, values in _arrangements(wanted):
        if values.shape == stored.shape and _matches(stored, values):
            return f"the {what} are {text}"
    for name, values in others:
        if values.shape == stored.shape and _matches(stored, values):
            return f"the {what} are those of {name}"
    ratios = stored[wrong] / wanted[wrong]
    ratio = ratios.median().item()
    if len(ratios) > 1 and bool(((ratios / ratio - 1).abs() < 1e-3).all()):
        return f"the {what} are {ratio:.4g} times the checkpoint's"
    return None


def _arrangements(wanted: Tensor) -> Iterable[tuple[str, Tensor]]:
    height, width = wanted.shape
    if wanted.numel() < 2:
        return
    if min(height, width) > 1:
        yield "stored by columns and read by rows", wanted.t().reshape(height, width)
        yield "stored by rows and read by columns", wanted.reshape(width, height).t()
    if width > 1:
        yield "those of the group before", wanted.roll(1, 1)
        yield "those of the group after", wanted.roll(-1, 1)
        yield "those of the groups in reverse", wanted.flip(1)
        yield "those of the block before", wanted.flatten().roll(1).view(height, width)
        yield "those of the block after", wanted.flatten().roll(-1).view(height, width)
        yield "the first group's in every group", wanted[:, :1].expand(height, width)
        if width % 2 == 0:
            yield (
                "those of the neighbouring group (halves of bytes swapped)",
                wanted.view(height, -1, 2).flip(2).flatten(1),
            )
    if height > 1:
        yield "those of the row before", wanted.roll(1, 0)
        yield "those of the row after", wanted.roll(-1, 0)


def _matches(stored: Tensor, values: Tensor) -> bool:
    return (stored == values).float().mean().item() >= MATCHED
