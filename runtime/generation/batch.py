"""Sequences that are decoded together: they join and leave between steps, and the batch has no empty slots."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from ..decoding.decoder import Decoder
from ..kernels import LONG_SEQUENCE
from ..sequence.sequence import ActiveSequence
from .prefix_cache import PrefixCache
from .prompt_files import PromptFiles
from .speculation import Rounds

RoundsOf = Callable[[ActiveSequence], Rounds | None]
"""Returns the rounds of a sequence; None where it takes one token in each step."""


class Advance(NamedTuple):
    """What a step made of a sequence: the text that is certain now, or the error that has ended it."""

    sequence: ActiveSequence
    chunk: str
    error: Exception | None = None


@dataclass
class _Joining:
    """A sequence whose prompt is being read into a slot behind the running ones; ``read`` tokens of it are."""

    sequence: ActiveSequence
    slot: int
    read: int


class Batch:
    """The running sequences of a decoder, in its first slots.

    The first token of a sequence follows its own prefill; the others come from steps that all sequences take together.
    When a sequence ends, a new one may take its slot; an empty slot is filled with the last sequence before the next
    step.

    Args:
        slots: how many sequences run at most; None for all slots of the decoder. The others keep prompts.
        shares: prompts that begin alike may share what is read; False where a token's numbers depend on the length.
        files: prompts on disk; None for none.
        step: that of ``prefill_step``.
    """

    def __init__(
        self,
        decoder: Decoder,
        slots: int | None = None,
        shares: bool = True,
        files: PromptFiles | None = None,
        step: int | None = None,
    ) -> None:
        self._decoder = decoder
        self._places = decoder.slots if slots is None else slots
        self._slots: list[ActiveSequence | None] = []
        self._joining: _Joining | None = None
        self._shares = shares
        self._prefixes = PrefixCache(decoder, self._places if shares else decoder.slots, files, step)

    @property
    def free(self) -> int:
        """How many sequences may join."""
        return self._places - self.running - (self._joining is not None)

    @property
    def running(self) -> int:
        """How many sequences are decoded."""
        return sum(sequence is not None for sequence in self._slots)

    @property
    def kept_prompts(self) -> int:
        """How many prompts are kept for those that begin alike."""
        return len(self._prefixes)

    @property
    def longest(self) -> list[int]:
        """The most tokens that each slot of the decoder has had. Any thread may ask."""
        return [self._decoder.longest(slot) for slot in range(self._decoder.slots)]

    @property
    def joining(self) -> ActiveSequence | None:
        """The sequence whose prompt is being read."""
        return None if self._joining is None else self._joining.sequence

    @property
    def unread(self) -> int:
        """How many tokens of its prompt are left."""
        return 0 if self._joining is None else int(self._joining.sequence.prompt.size) - self._joining.read

    @property
    def alone(self) -> ActiveSequence | None:
        """The sequence that is decoded, where there is one and none joins."""
        running = [sequence for sequence in self._slots if sequence is not None]
        return running[0] if len(running) == 1 and self._joining is None else None

    def join(self, sequence: ActiveSequence) -> str:
        """Prefill a sequence, which may end it at once; return the first chunk of its text."""
        if sequence.expired():
            return ""
        slot = next((i for i, other in enumerate(self._slots) if other is None), len(self._slots))
        chunk = sequence.accept(self._decoder.prefill(slot, sequence.prompt))
        if sequence.finish_reason is None:
            self._slots[slot : slot + 1] = [sequence]
        return chunk

    def begin(self, sequence: ActiveSequence) -> int:
        """Let a sequence join whose prompt ``read`` reads; return how many of its tokens another slot held."""
        assert self._joining is None
        self._fill_slots()
        slot = len(self._slots)
        known = [(number, other.prompt) for number, other in enumerate(self._slots) if other is not None]
        read = self._prefixes.restore(slot, sequence.prompt, known) if self._shares else 0
        self._joining = _Joining(sequence, slot, read)
        return read

    def read(self, count: int) -> str | None:
        """Read ``count`` more tokens of the joining prompt; after the last one return the first chunk of the text."""
        joining = self._joining
        assert joining is not None
        sequence, start = joining.sequence, joining.read
        tokens = sequence.prompt[start : start + count]
        decoder, slot = self._decoder, joining.slot
        part = tokens.size < sequence.prompt.size >= LONG_SEQUENCE
        logits = decoder.extend(slot, tokens, part=part)[0] if start else decoder.prefill(slot, tokens, part)
        joining.read += int(tokens.size)
        if joining.read < sequence.prompt.size:
            return None
        self._joining = None
        chunk = sequence.accept(logits)
        self._fill_slots()
        if joining.slot != len(self._slots):
            self._decoder.copy(joining.slot, len(self._slots))
        prompt = int(sequence.prompt.size)
        if sequence.finish_reason is None:
            self._slots.append(sequence)
        if sequence.finish_reason is not None or not decoder.can_return(prompt + sequence.limit, prompt):
            self._prefixes.keep(joining.slot, sequence.prompt)  # now, since it may not be possible at the end
        return chunk

    def leave(self, sequence: ActiveSequence) -> None:
        """Remove a sequence before its end."""
        if self.joining is sequence:
            self._joining = None
        for slot, other in enumerate(self._slots):
            if other is sequence:
                self._end(slot)

    def drop_running(self) -> list[ActiveSequence]:
        """Remove and return the sequences that are decoded, after a step that failed; none is kept."""
        lost = [sequence for sequence in self._slots if sequence is not None]
        self._slots = []
        return lost

    def clear(self) -> None:
        """Remove all sequences; also after a failure."""
        self._slots = []
        self._joining = None

    def close(self) -> None:
        """Wait until the prompts that are kept on disk are written."""
        self._prefixes.close()

    def step(self, rounds_of: RoundsOf = lambda _: None) -> list[Advance]:
        """Decode every sequence by one token or more, and remove those that end.

        A sequence that is ``alone`` takes a round, with guesses. With others, it first reads the tokens that its
        grammar forces in a pass of its own, where that costs less than further steps of the batch.
        """
        sequences = self._fill_slots()
        if not sequences:
            return []
        if self.alone is not None and (rounds := rounds_of(self.alone)) is not None:
            return [self._ended(0, _attempt(self.alone, lambda: "".join(rounds.next(self._decoder))))]
        before = self._read_forced(sequences, rounds_of)
        ended = [advance for advance in before if advance.error is not None or advance.sequence.finish_reason]
        chunks = {id(sequence): chunk for sequence, chunk, _ in before}
        sequences = self._fill_slots()
        if not sequences:
            return ended
        try:
            logits = self._decoder.step(np.array([sequence.token_ids[-1] for sequence in sequences], dtype=np.int64))
        except Exception as error:  # whatever ONNX Runtime raises
            if not ended:
                raise
            return ended + [Advance(sequence, "", error) for sequence in self.drop_running()]
        advances = [_attempt(one, partial(one.accept, logits[slot])) for slot, one in enumerate(sequences)]
        stepped = [self._ended(slot, advance) for slot, advance in enumerate(advances)]
        return ended + [one._replace(chunk=chunks.get(id(one.sequence), "") + one.chunk) for one in stepped]

    def _read_forced(self, sequences: list[ActiveSequence], rounds_of: RoundsOf) -> list[Advance]:
        """Let sequences take the tokens that their grammars force; return the advances of those that did."""
        advances = []
        for slot, sequence in enumerate(sequences):
            if (rounds := rounds_of(sequence)) is not None and (forced := rounds.forced(len(sequences))):
                taken = _attempt(sequence, partial(rounds.read_forced, self._decoder, slot, forced))
                advances.append(self._ended(slot, taken))
        return advances

    def _ended(self, slot: int, advance: Advance) -> Advance:
        """Empty the slot of a sequence that has ended; return its advance."""
        if advance.error is not None or advance.sequence.finish_reason is not None:
            self._end(slot)
        return advance

    def _end(self, slot: int) -> None:
        """Empty a slot; its prompt is kept where there is room for it."""
        sequence = self._slots[slot]
        assert sequence is not None
        self._prefixes.keep(slot, sequence.prompt)
        self._slots[slot] = None

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


def run(batch: Batch, sequences: list[tuple[ActiveSequence, Rounds]]) -> None:
    """Generate all sequences to their end, as many at once as the batch has slots. No guesses are made."""
    waiting = sequences[::-1]
    rounds = {id(sequence): its for sequence, its in sequences}
    while waiting or batch.running:
        while waiting and batch.free:
            batch.join(waiting.pop()[0])
        for advance in batch.step(lambda sequence: rounds[id(sequence)]):
            if advance.error is not None:
                raise advance.error


def _attempt(sequence: ActiveSequence, advance: Callable[[], str]) -> Advance:
    """Return what becomes of a sequence; its error, such as one of a logits processor, concerns no other."""
    try:
        return Advance(sequence, advance())
    except Exception as error:  # whatever a function of the caller or ONNX Runtime raises
        return Advance(sequence, "", error)
