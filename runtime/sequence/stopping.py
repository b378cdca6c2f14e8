"""Stop strings in streamed text: found even when split over tokens, and never shown in part.

One automaton searches for all of them (A. V. Aho and M. J. Corasick, "Efficient string matching", 1975), so the time
of a character does not depend on their number and length.
"""

from collections.abc import Sequence
from functools import lru_cache

from ...errors import UsageError

MOST_CHARACTERS = 250_000
"""The total length of the stop strings; building their tables then takes half a second and 60 MB."""


class StopStrings:
    """Passes text on until one of the stop strings appears; the earliest occurrence ends the text before it.

    Text that could be the beginning of a stop string is held back until the next chunk decides.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._automaton = _automaton(tuple(stops))
        self._node = 0
        self._held = ""
        self.found: str | None = None

    def push(self, chunk: str) -> str:
        """Return the text that is certain to come before any stop string; empty once ``found`` is set."""
        if self.found is not None:
            return ""
        text = self._held + chunk
        hits = []
        for end, character in enumerate(chunk, len(self._held) + 1):
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
        """Return the text that is held back; for the end of a text without a stop string."""
        held, self._held = self._held, ""
        return held


def stop_strings(stop: str | Sequence[str]) -> tuple[str, ...]:
    """Return one stop string or several as a tuple.

    Raises:
        UsageError: an empty stop string, which would stop before the first character, or more than MOST_CHARACTERS.
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
    """Nodes are the prefixes of the stop strings; the current node is the longest that the text so far ends with.

    ``depth`` is the length of each node's prefix, ``stop`` the length of the longest stop string that the prefix ends
    with, or 0.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._shorter = [0]  # for each node the longest proper suffix of its prefix that is a node too
        self.depth = [0]
        self.stop = [0]
        for stop in stops:
            node = 0
            for character in stop:
                node = self._next[node].get(character) or self._add(node, character)
            self.stop[node] = len(stop)
        self._link()

    def step(self, node: int, character: str) -> int:
        """Return the node after one more character."""
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
        """Compute the suffix links, shorter nodes first: a node's link is found through its parent's."""
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
    """Return the automaton; built once for the sequences of a call and for later calls with the same strings."""
    return Automaton(stops)
