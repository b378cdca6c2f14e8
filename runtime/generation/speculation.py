"""Speculative decoding: a proposer guesses the next tokens, and the model checks all of them in one pass.

The pass computes the logits after every guess. The sampler chooses from them in order, with the random numbers that it
would have used without guesses. The first choice that differs from its guess ends the round, and the cache is rolled
back to it. So the tokens are those of plain decoding, and only the number of passes differs (Leviathan et al. 2023).

Tokens that are the only ones a grammar allows are not guessed: they are read like a part of a prompt. Their logits are
computed only where something needs them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..decoding.decoder import Decoder
from ..sequence.request import Request
from ..sequence.sampler import Floats
from ..sequence.sequence import ActiveSequence
from .guesses.pass_cost import LONGEST_FORCED, PassCost
from .guesses.suffix_lookup import EarlierTexts


class Proposal(Protocol):
    """Guesses of the tokens after a text, one after the other."""

    def guess(self) -> tuple[int, float] | None:
        """Return the likeliest next token, and how likely the model chooses it; None for no guess."""
        ...

    def take(self, token: int) -> None:
        """Assume that ``token`` is the next one."""
        ...


class Proposer(Protocol):
    """Guesses the next tokens of one text."""

    def begin(self, history: list[int]) -> Proposal:
        """Return guesses of what follows ``history``: the list of the last call, with new tokens."""
        ...


@dataclass(frozen=True)
class Draft:
    """Tokens that may come next. The first ``forced`` are certain, the others are guesses."""

    tokens: list[int]
    forced: int = 0


class Speculation:
    """A proposer, and the number of its guesses that are worth their cost.

    The number depends on how likely they are and on ``PassCost``, not on time, so a seed gives the same passes every
    time.
    """

    def __init__(self, proposer: Proposer, cost: PassCost) -> None:
        self.cost = cost
        self._proposer = proposer
        self.proposed = 0
        self.accepted = 0

    def draft(self, sequence: ActiveSequence, history: list[int], most: int, reversible: int) -> Draft:
        """Return the tokens with which a pass makes the most tokens for its cost.

        Args:
            history: the tokens of the sequence, prompt included.
            most: the most tokens that may come before the sequence's last one.
            reversible: the most tokens of a pass that can be rolled back.
        """
        ahead = sequence.ahead()
        tokens = [] if ahead is None else ahead.forced(min(most, LONGEST_FORCED - 1))
        forced = len(tokens)
        room = min(most, self.cost.longest - 1, reversible - 1)
        if forced >= room:
            return Draft(tokens, forced)
        proposal = self._proposer.begin(history)
        for token in tokens:
            proposal.take(token)
        guesses, probability = 0, 1.0
        expected = 1.0 + forced
        chosen, rate = forced, expected / self.cost.of(1 + forced)
        while len(tokens) < room:
            if not self._may_pay(len(tokens), room, guesses + 1, expected, probability, rate):
                break  # even where the next guess is certain: do not ask for it
            if (found := proposal.guess()) is None:
                break
            token, likely = found
            if sequence.ends_with(token) or (ahead is not None and not ahead.take(token)):
                break
            probability *= likely
            guesses += 1
            if not self._may_pay(len(tokens), room, guesses, expected, probability, rate):
                break
            proposal.take(token)
            tokens.append(token)
            expected += probability
            for token in [] if ahead is None else ahead.forced(room - len(tokens)):
                proposal.take(token)
                tokens.append(token)
                expected += probability
            if (new := expected / self.cost.of(1 + len(tokens), guesses)) >= rate:
                chosen, rate = len(tokens), new
        return Draft(tokens[:chosen], forced)

    def update(self, proposed: int, accepted: int) -> None:
        """Count the guesses of a round, of which ``accepted`` were right."""
        self.proposed += proposed
        self.accepted += accepted

    def _may_pay(self, tokens: int, room: int, guesses: int, expected: float, probability: float, rate: float) -> bool:
        """Return True where a draft of more than ``tokens`` could have the rate, if all that follows were as likely."""
        return any(
            (expected + (size - tokens) * probability) >= rate * self.cost.of(1 + size, guesses)
            for size in range(tokens + 1, room + 1)
        )


class SpeculationFor(Protocol):
    """Returns the speculation of a request whose prompt has so many tokens; None for none."""

    def __call__(self, request: Request, prompt: int, earlier: EarlierTexts | None = None, /) -> Speculation | None: ...


class Rounds:
    """The rounds of one sequence of a decoder. Between two rounds it may take part in steps of a batch.

    Args:
        speculation: None for rounds of one token.
    """

    def __init__(self, sequence: ActiveSequence, speculation: Speculation | None) -> None:
        self._sequence = sequence
        self._speculation = speculation
        self._history: list[int] = []

    def next(self, decoder: Decoder) -> list[str]:
        """Read the last token, and others that may follow it; return the chunks of text. The sequence has slot 0.

        Afterwards the decoder has read all tokens but the last, or, where others ended the sequence, some more.
        """
        sequence, speculation = self._sequence, self._speculation
        draft = Draft([])
        if speculation is not None:
            history = self._history or sequence.prompt.tolist()
            history.extend(sequence.token_ids[len(history) - sequence.prompt.size :])
            self._history = history
            draft = speculation.draft(sequence, history, self._most, decoder.reversible(0))
        if speculation is None or not draft.tokens:
            return [sequence.accept(decoder.step(np.array(sequence.token_ids[-1:]))[0])]
        chunks, accepted = _round(decoder, sequence, draft)
        speculation.update(len(draft.tokens) - draft.forced, max(0, accepted - draft.forced))
        return chunks

    def forced(self, sequences: int) -> list[int]:
        """Return the tokens that must come next; none where a batch of so many sequences reads them at less cost."""
        if self._speculation is None or (ahead := self._sequence.ahead()) is None:
            return []
        tokens = ahead.forced(min(self._most, LONGEST_FORCED))
        return [] if tokens and self._speculation.cost.batch_is_cheaper(len(tokens), sequences) else tokens

    def read_forced(self, decoder: Decoder, slot: int, tokens: list[int]) -> str:
        """Take ``forced`` tokens, and read them up to the last but one; return their text."""
        sequence = self._sequence
        keep = len(tokens) if sequence.needs_logits else 1
        logits = decoder.extend(slot, np.array([sequence.token_ids[-1], *tokens[:-1]]), keep=keep)
        chunks = []
        for index, token in enumerate(tokens):
            chunks.append(sequence.accept(logits[index]) if sequence.needs_logits else sequence.push_forced(token))
            if sequence.finish_reason is not None:
                break
        return "".join(chunks)

    @property
    def _most(self) -> int:
        """The most tokens that may come before the last one."""
        return self._sequence.limit - len(self._sequence.token_ids) - 1


def decode(
    decoder: Decoder, sequence: ActiveSequence, logits: Floats, speculation: Speculation | None = None
) -> Iterator[str]:
    """Generate one sequence in slot 0 of a decoder; yield its text in chunks, some of them empty.

    At each chunk the decoder has read the prompt and all generated tokens but the last, or, after a round of guesses,
    some more of them.

    Args:
        logits: those of the prompt's last position, [V].
    """
    yield sequence.accept(logits)
    rounds = Rounds(sequence, speculation)
    while sequence.finish_reason is None:
        yield from rounds.next(decoder)


def _round(decoder: Decoder, sequence: ActiveSequence, draft: Draft) -> tuple[list[str], int]:
    """Read the last token and a draft in one pass; return the chunks of text, and how many of the draft were right."""
    before = decoder.length(0)
    tokens = draft.tokens
    without = 0 if sequence.needs_logits else draft.forced  # how many tokens are taken without their logits
    logits = decoder.extend(0, np.array([sequence.token_ids[-1], *tokens]), keep=1 + len(tokens) - without)
    chunks = []
    accepted = 0
    for index in range(1 + len(tokens)):
        if index < without:
            chunks.append(sequence.push_forced(tokens[index]))
        else:
            chunks.append(sequence.accept(logits[index - without]))
        right = index < len(tokens) and sequence.token_ids[-1] == tokens[index]
        if sequence.finish_reason is not None or not right:
            break
        accepted += 1
    decoder.rollback(0, before + 1 + accepted)
    return chunks, accepted
