"""Stop strings in streamed text: found even when split over tokens, and never shown in part."""

from collections.abc import Sequence

from ..errors import UsageError


class StopStrings:
    """Passes text on until one of the stop strings appears; the earliest occurrence ends the text before it.

    Text that could be the beginning of a stop string is held back until the next piece decides.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def push(self, piece: str) -> str:
        """Text that is certain to come before any stop string; empty once ``found`` is set."""
        if self.found is not None:
            return ""
        text = self._held + piece
        hits = [(at, -len(stop), stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if hits:
            at, _, self.found = min(hits)
            self._held = ""
            return text[:at]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, when the text ends otherwise."""
        held, self._held = self._held, ""
        return held


def stop_strings(stop: str | Sequence[str]) -> tuple[str, ...]:
    """One stop string or several, as a tuple.

    Raises:
        UsageError: an empty stop string, which would stop before the first character.
    """
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    for one in stops:
        if not isinstance(one, str) or not one:
            raise UsageError(f"stop strings must be non-empty text, not {one!r}; leave it out")
    return stops


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper prefix of ``stop`` that ``text`` ends with."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
