"""Rows that generate together: they join and leave between steps, and the batch is as large as its rows are many."""

import numpy as np

from ..decoding.decoder import Decoder
from ..sequence.sequence import Row


class Batch:
    """The running rows of a decoder, in its first places.

    A row's first token follows its own prefill, the others come from steps that all rows take together. When a row
    ends, a new one may take its place; a place that stays empty is filled with the last row before the next step.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._rows: list[Row | None] = []

    @property
    def free(self) -> int:
        """How many rows may join."""
        return self._decoder.rows - self.running

    @property
    def running(self) -> int:
        return sum(row is not None for row in self._rows)

    def join(self, row: Row) -> str:
        """Prefill a row, which may end it at once; the first piece of its text."""
        place = next((i for i, other in enumerate(self._rows) if other is None), len(self._rows))
        piece = row.accept(self._decoder.prefill(place, row.prompt))
        if row.finish_reason is None:
            self._rows[place : place + 1] = [row]
        return piece

    def leave(self, row: Row) -> None:
        """Let a row go before its end."""
        self._rows = [None if other is row else other for other in self._rows]

    def clear(self) -> None:
        """Let all rows go; also after a failure."""
        self._rows = []

    def step(self) -> list[tuple[Row, str]]:
        """One token for every row; each row with the piece of its text. Those that have ended are gone afterwards."""
        rows = self._close_up()
        if not rows:
            return []
        logits = self._decoder.step(np.array([row.token_ids[-1] for row in rows], dtype=np.int64))
        pieces = [(row, row.accept(logits[place])) for place, row in enumerate(rows)]
        self._rows = [None if row.finish_reason is not None else row for row in rows]
        return pieces

    def _close_up(self) -> list[Row]:
        """The rows, with every empty place filled by the last of them."""
        rows = self._rows
        place = 0
        while place < len(rows):
            if rows[-1] is None:
                rows.pop()
            elif rows[place] is None:
                self._decoder.move(len(rows) - 1, place)
                rows[place] = rows.pop()
            else:
                place += 1
        return [row for row in rows if row is not None]
