"""Stop strings in streamed text: found even when split over tokens, and never shown in part.

The strings are looked for together (A. V. Aho and M. J. Corasick, "Efficient string matching", 1975): a character
costs the same however many strings there are, and however long.
"""

from collections.abc import Sequence
from functools import lru_cache

from ...errors import UsageError

MOST_CHARACTERS = 250_000
"""Of all stop strings together: their tables then take half a second and 60 MB to make."""


class StopStrings:
    """Passes text on until one of the stop strings appears; the earliest occurrence ends the text before it.

    Text that could be the beginning of a stop string is held back until the next piece decides.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._automaton = _automaton(tuple(stops))
        self._node = 0
        self._held = ""
        self.found: str | None = None

    def push(self, piece: str) -> str:
        """Text that is certain to come before any stop string; empty once ``found`` is set."""
        if self.found is not None:
            return ""
        text = self._held + piece
        hits = []
        for end, character in enumerate(piece, len(self._held) + 1):
            self._node = self._automaton.step(self._node, character)
            if length := self._automaton.stop[self._node]:
                hits.append((end - length, -length))
        if hits:
            at, length = min(hits)
            self.found = text[at : at - length]
            self._held = ""
            return text[:at]
        keep = self._automaton.depth[self._node]
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, when the text ends otherwise."""
        held, self._held = self._held, ""
        return held


def stop_strings(stop: str | Sequence[str]) -> tuple[str, ...]:
    """One stop string or several, as a tuple.

    Raises:
        UsageError: an empty stop string, which would stop before the first character; or more text than can be watched
            for.
    """
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    for one in stops:
        if not isinstance(one, str) or not one:
            raise UsageError(f"stop strings must be non-empty text, not {one!r}; leave it out")
    if (total := sum(map(len, stops))) > MOST_CHARACTERS:
        raise UsageError(
            f"the {len(stops):,} stop strings have {total:,} characters, and {MOST_CHARACTERS:,} are the most; "
            "give fewer, or shorter ones"
        )
    return stops


class Automaton:
    """A node stands for a beginning of some stop string: the longest one that the text so far ends with.

    ``depth`` is each node's length, ``stop`` the length of the longest stop string that the text ends with there, or 0.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._shorter = [0]  # the node of the longest end of a node's text that is a beginning too
        self.depth = [0]
        self.stop = [0]
        for stop in stops:
            node = 0
            for character in stop:
                node = self._next[node].get(character) or self._add(node, character)
            self.stop[node] = len(stop)
        self._link()

    def step(self, node: int, character: str) -> int:
        """The node after one more character."""
        while node and character not in self._next[node]:
            node = self._shorter[node]
        return self._next[node].get(character, 0)

    def _add(self, node: int, character: str) -> int:
        self._next[node][character] = added = len(self.depth)
        self._next.append({})
        self._shorter.append(0)
        self.depth.append(self.depth[node] + 1)
        self.stop.append(0)
        return added

    def _link(self) -> None:
        """Shorter nodes first, since a node's link is found through its parent's."""
        level = list(self._next[0].values())
        while level:
            below = []
            for node in level:
                self.stop[node] = self.stop[node] or self.stop[self._shorter[node]]
                for character, child in self._next[node].items():
                    self._shorter[child] = self.step(self._shorter[node], character)
                    below.append(child)
            level = below


@lru_cache(maxsize=1)
def _automaton(stops: tuple[str, ...]) -> Automaton:
    """Made once for the rows of a call, and for calls after it with the same strings."""
    return Automaton(stops)
