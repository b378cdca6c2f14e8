"""Edits that make faults in the bytes of the weights, float and quantized.

A float projection is stored transposed, [K, N]; the LM head and the embedding as [V, D].
"""

from collections.abc import Callable

import numpy as np

from ..artifact_editor import Array, ArtifactEditor
from .attention import HEAD_DIM, Edit


def rewritten(name: str, change: Callable[[Array], Array]) -> Edit:
    """Replace a weight by what ``change`` returns for it."""

    def edit(editor: ArtifactEditor) -> None:
        weight = editor.array(name)
        weight[:] = change(weight.copy())

    return edit


def transposed(name: str) -> Edit:
    return rewritten(name, np.transpose)


def zeroed(name: str, part: slice = slice(None)) -> Edit:
    def edit(editor: ArtifactEditor) -> None:
        editor.array(name)[part] = 0

    return edit


def swapped(one: str, other: str) -> Edit:
    def edit(editor: ArtifactEditor) -> None:
        first, second = editor.array(one), editor.array(other)
        first[:], second[:] = second.copy(), first.copy()

    return edit


def copied(source: str, target: str) -> Edit:
    def edit(editor: ArtifactEditor) -> None:
        editor.array(target)[:] = editor.array(source)

    return edit


def heads_permuted(name: str, order: tuple[int, ...]) -> Edit:
    """Permute the columns of a stored projection [K, H*E] by heads."""
    columns = np.concatenate([np.arange(HEAD_DIM) + head * HEAD_DIM for head in order])
    return rewritten(name, lambda weight: weight[:, columns])


def rows_shifted(name: str, first: int) -> Edit:
    """Replace each row from ``first`` on by the row before it."""

    def change(weight: Array) -> Array:
        weight[first:] = weight[first - 1 : -1].copy()
        return weight

    return rewritten(name, change)


def half_precision(name: str) -> Edit:
    """Round a weight to float16."""
    return rewritten(name, lambda weight: weight.astype(np.float16))


def overflowed(name: str) -> Edit:
    """Set one value to infinity."""

    def edit(editor: ArtifactEditor) -> None:
        editor.array(name)[3] = np.inf

    return edit


def sign_flipped(weight: str, row: int, block: int, *, columns: bool = False) -> Edit:
    """Flip the sign of one block's scale; ``columns``: the scales are stored as [KB, N]."""

    def edit(editor: ArtifactEditor) -> None:
        scales = editor.array(f"{weight}.scales")
        scales[(block, row) if columns else (row, block)] *= -1

    return edit


def scales_out_of_order(weight: str) -> Edit:
    """Store the scales [N, KB] as [KB, N]."""
    return rewritten(f"{weight}.scales", lambda scales: scales.T.reshape(scales.shape))


def zero_points_raised(weight: str, name: str = "zero_points") -> Edit:
    """Add 1 to every 4-bit zero point below 15."""
    return rewritten(f"{weight}.{name}", _higher)


def codes_raised(weight: str, bits: int) -> Edit:
    """Add 1 to every code, which is as if the reader's implicit zero point were one too low."""
    if bits == 4:
        return rewritten(f"{weight}.codes", _higher)
    return rewritten(f"{weight}.codes", lambda codes: np.minimum(codes, 254) + 1)


def _higher(packed: Array) -> Array:
    low, high = np.minimum((packed & 15) + 1, 15), np.minimum((packed >> 4) + 1, 15)
    raised: Array = low | (high << 4)
    return raised


def nibbles_swapped(weight: str) -> Edit:
    """Swap the two codes of each byte."""
    return rewritten(f"{weight}.codes", lambda packed: (packed << 4) | (packed >> 4))
