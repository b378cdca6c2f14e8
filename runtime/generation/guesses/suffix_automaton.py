"""A suffix automaton of tokens: the longest end of a text that occurred before, and what followed it most often.

A state stands for the contexts (sequences of tokens) that end at the same positions of the text. Its link leads to the
state of the longest shorter end of these contexts that occurs elsewhere too. A text of n tokens has at most 2 n states
and 3 n transitions, and is read one token at a time (A. Blumer et al., "The smallest automaton recognizing the subwords
of a text", 1985). How often a context occurred is counted for contexts of up to ``COUNTED`` tokens, so that a token
takes a bounded time whatever the text.
"""

from array import array
from collections.abc import Iterable
from typing import NamedTuple

COUNTED = 16
NONE = -1
SEPARATOR = -2
"""Added between two texts: no token is equal to it, so that no context spans both."""


class Match(NamedTuple):
    """A context that occurs in the text: its state, and its length in tokens."""

    state: int
    length: int


EMPTY = Match(0, 0)


class SuffixAutomaton:
    """The contexts of a text, to whose end tokens are added."""

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self._link = array("i", [NONE])
        self._length = array("i", [0])  # of the longest context of each state
        self._count = array("i", [0])  # how often its contexts occurred
        self._likely = array("i", [NONE])  # the token that followed them most often, of several the latest
        # Most states have one transition. It is kept in arrays, and the others in dictionaries.
        self._token = array("i", [NONE])
        self._next = array("i", [NONE])
        self._more: dict[int, dict[int, int]] = {}
        self._last = 0  # the state of the whole text
        self._counted = 0  # the state of its last COUNTED tokens
        self._size = 0
        self.extend(tokens)

    def __len__(self) -> int:
        """Return how many tokens the text has."""
        return self._size

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        return 6 * 4 * len(self._link) + sum(232 + 100 * (len(more) // 6) for more in self._more.values())

    def extend(self, tokens: Iterable[int]) -> None:
        """Add tokens."""
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        """Add a token to the end of the text."""
        link, length, tokens, targets = self._link, self._length, self._token, self._next
        more = self._more
        last = self._last
        state = self._new(length[last] + 1)
        above = last
        target = NONE
        while above != NONE:
            first = tokens[above]
            if first == NONE:
                tokens[above], targets[above] = token, state
            elif first == token:
                target = targets[above]
                break
            elif (others := more.get(above)) is None:
                more[above] = {token: state}
            elif (target := others.get(token, NONE)) == NONE:
                others[token] = state
            else:
                break
            above = link[above]
        if above == NONE:
            link[state] = 0
        elif length[above] + 1 == length[target]:
            link[state] = target
        else:
            link[state] = self._split(above, token, target)
        self._last = state
        self._likely[last] = token
        if not self._is_counted(max(link[last], 0)):
            self._likely[link[last]] = token
        self._count_ends(token)
        self._size += 1

    def longest(self) -> Match:
        """Return the longest end of the text that occurred before."""
        state = max(self._link[self._last], 0)
        return Match(state, self._length[state])

    def follow(self, match: Match, token: int) -> Match:
        """Return the longest end of a context and the token after it that occurs in the text."""
        state, length = match
        while (target := self._target(state, token)) == NONE:
            if state == 0:
                return EMPTY
            state = self._link[state]
            length = self._length[state]
        return Match(target, length + 1)

    def continued(self, match: Match) -> Match:
        """Return the longest end of a context that has a token after it: not the end of the text alone."""
        return self.longest() if match.state == self._last else match

    def likely(self, match: Match) -> tuple[int, int, int] | None:
        """Return the token that followed a context most often, how often, and how often the context occurred.

        Contexts that are not counted have the latest token, and counts of 0. Return None for no token.
        """
        token = self._likely[match.state]
        if token < 0 or match.length == 0:
            return None
        if not self._is_counted(match.state):
            return token, 0, 0
        return token, self._count[self._target(match.state, token)], self._count[match.state]

    def _is_counted(self, state: int) -> bool:
        """Return True where the shortest context of a state has no more than ``COUNTED`` tokens."""
        return state == 0 or self._length[self._link[state]] < COUNTED

    def _new(self, length: int) -> int:
        self._link.append(0)
        self._length.append(length)
        self._count.append(0)
        self._likely.append(NONE)
        self._token.append(NONE)
        self._next.append(NONE)
        return len(self._link) - 1

    def _target(self, state: int, token: int) -> int:
        if self._token[state] == token:
            return self._next[state]
        others = self._more.get(state)
        return NONE if others is None else others.get(token, NONE)

    def _split(self, above: int, token: int, target: int) -> int:
        """Give the contexts of ``target`` that occur at the end of the text too a state of their own; return it."""
        link, length = self._link, self._length
        short = self._new(length[above] + 1)
        link[short], link[target] = link[target], short
        for values in (self._count, self._likely, self._token, self._next):
            values[short] = values[target]
        if target in self._more:
            self._more[short] = dict(self._more[target])
        if self._counted == target and min(self._size, COUNTED) <= length[short]:
            self._counted = short
        while above != NONE and self._target(above, token) == target:
            if self._token[above] == token:
                self._next[above] = short
            else:
                self._more[above][token] = short
            above = link[above]
        return short

    def _count_ends(self, token: int) -> None:
        """Count the ends of the text, of which ``token`` is the last one, and what has followed those before it."""
        link, count, likely = self._link, self._count, self._likely
        state, before = self._counted, NONE
        while state != NONE:
            target = self._target(state, token)
            if target != before:
                count[target] += 1
                before = target
            best = likely[state]
            if best != token and (best == NONE or count[target] >= count[self._target(state, best)]):
                likely[state] = token
            state = link[state]
        state = self._target(self._counted, token)
        while self._length[link[state]] >= COUNTED:
            state = link[state]
        self._counted = state
