"""Sequences that are decoded together: they join and leave between steps, and the batch has no empty slots."""

import numpy as np

from ..decoding.decoder import Decoder
from ..sequence.sequence import ActiveSequence


class Batch:
    """The running sequences of a decoder, in its first slots.

    The first token of a sequence follows its own prefill; the others come from steps that all sequences take together.
    When a sequence ends, a new one may take its slot; an empty slot is filled with the last sequence before the next
    step.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._slots: list[ActiveSequence | None] = []

    @property
    def free(self) -> int:
        """How many sequences may join."""
        return self._decoder.slots - self.running

    @property
    def running(self) -> int:
        """How many sequences are decoded."""
        return sum(sequence is not None for sequence in self._slots)

    def join(self, sequence: ActiveSequence) -> str:
        """Prefill a sequence, which may end it at once; return the first chunk of its text."""
        if sequence.expired():
            return ""
        slot = next((i for i, other in enumerate(self._slots) if other is None), len(self._slots))
        chunk = sequence.accept(self._decoder.prefill(slot, sequence.prompt))
        if sequence.finish_reason is None:
            self._slots[slot : slot + 1] = [sequence]
        return chunk

    def leave(self, sequence: ActiveSequence) -> None:
        """Remove a sequence before its end."""
        self._slots = [None if other is sequence else other for other in self._slots]

    def clear(self) -> None:
        """Remove all sequences; also after a failure."""
        self._slots = []

    def step(self) -> list[tuple[ActiveSequence, str]]:
        """Decode one token of every sequence; return each with the chunk of its text, and remove those that end."""
        sequences = self._fill_slots()
        if not sequences:
            return []
        logits = self._decoder.step(np.array([sequence.token_ids[-1] for sequence in sequences], dtype=np.int64))
        chunks = [(sequence, sequence.accept(logits[slot])) for slot, sequence in enumerate(sequences)]
        self._slots = [None if sequence.finish_reason is not None else sequence for sequence in sequences]
        return chunks

    def _fill_slots(self) -> list[ActiveSequence]:
        """Fill every empty slot with the last sequence; return the sequences in their order."""
        slots = self._slots
        slot = 0
        while slot < len(slots):
            if slots[-1] is None:
                slots.pop()
            elif slots[slot] is None:
                self._decoder.copy(len(slots) - 1, slot)
                slots[slot] = slots.pop()
            else:
                slot += 1
        return [sequence for sequence in slots if sequence is not None]


def run(batch: Batch, sequences: list[ActiveSequence]) -> None:
    """Generate all sequences to their end, as many at once as the batch has slots."""
    waiting = sequences[::-1]
    while waiting or batch.running:
        while waiting and batch.free:
            batch.join(waiting.pop())
        batch.step()
