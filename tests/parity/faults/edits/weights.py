"""Faults in the bytes of the weights, float and quantized. Each function changes an opened artifact.

A float projection is stored transposed, [K, N]; the LM head and the embedding as they are, [V, D].
"""

from collections.abc import Callable

import numpy as np

from ..surgery import Array, Surgery
from .attention import HEAD_DIM, Plant


def rewritten(name: str, change: Callable[[Array], Array]) -> Plant:
    """A weight is what ``change`` makes of it."""

    def plant(s: Surgery) -> None:
        weight = s.array(name)
        weight[:] = change(weight.copy())

    return plant


def transposed(name: str) -> Plant:
    return rewritten(name, np.transpose)


def zeroed(name: str, part: slice = slice(None)) -> Plant:
    def plant(s: Surgery) -> None:
        s.array(name)[part] = 0

    return plant


def swapped(one: str, other: str) -> Plant:
    def plant(s: Surgery) -> None:
        first, second = s.array(one), s.array(other)
        first[:], second[:] = second.copy(), first.copy()

    return plant


def copied(source: str, target: str) -> Plant:
    def plant(s: Surgery) -> None:
        s.array(target)[:] = s.array(source)

    return plant


def heads_permuted(name: str, order: tuple[int, ...]) -> Plant:
    """The columns of a stored projection [K, H*E], head by head."""
    columns = np.concatenate([np.arange(HEAD_DIM) + head * HEAD_DIM for head in order])
    return rewritten(name, lambda weight: weight[:, columns])


def rows_late(name: str, first: int) -> Plant:
    """From row ``first`` on, each row is the one before it."""

    def change(weight: Array) -> Array:
        weight[first:] = weight[first - 1 : -1].copy()
        return weight

    return rewritten(name, change)


def half_precision(name: str) -> Plant:
    """Rounded to float16 on the way."""
    return rewritten(name, lambda weight: weight.astype(np.float16))


def overflowed(name: str) -> Plant:
    """One value beyond the range of float16."""

    def plant(s: Surgery) -> None:
        s.array(name)[3] = np.inf

    return plant


def sign_flipped(weight: str, row: int, block: int, *, columns: bool = False) -> Plant:
    """One block's scale; ``columns``: the scales lie as [KB, N]."""

    def plant(s: Surgery) -> None:
        scales = s.array(f"{weight}.scales")
        scales[(block, row) if columns else (row, block)] *= -1

    return plant


def scales_out_of_order(weight: str) -> Plant:
    """[N, KB] written as [KB, N]."""
    return rewritten(f"{weight}.scales", lambda scales: scales.T.reshape(scales.shape))


def zero_points_late(weight: str, name: str = "zero_points") -> Plant:
    """Every zero point of four bits one higher, where there is room."""
    return rewritten(f"{weight}.{name}", _higher)


def codes_late(weight: str, bits: int) -> Plant:
    """Every code one higher: what a zero point one too low in the reader amounts to where none is stored."""
    if bits == 4:
        return rewritten(f"{weight}.codes", _higher)
    return rewritten(f"{weight}.codes", lambda codes: np.minimum(codes, 254) + 1)


def _higher(packed: Array) -> Array:
    low, high = np.minimum((packed & 15) + 1, 15), np.minimum((packed >> 4) + 1, 15)
    return low | (high << 4)


def nibbles_exchanged(weight: str) -> Plant:
    """Of two codes in a byte the first in the high half."""
    return rewritten(f"{weight}.codes", lambda packed: (packed << 4) | (packed >> 4))
