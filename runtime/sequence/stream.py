"""What ``TextGenerator.stream`` returns: pieces of text, and at their end the whole generation."""

from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

Result = TypeVar("Result")


class TextStream(Iterator[str], Generic[Result]):
    """An iterator over pieces of text.

    ``generation`` is what ``generate`` would have returned, once the pieces have ended; None before.
    """

    def __init__(self, pieces: Generator[str, None, None], finish: Callable[[], Result]) -> None:
        self._pieces = pieces
        self._finish = finish
        self.generation: Result | None = None

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration:
            if self.generation is None:
                self.generation = self._finish()
            raise

    def close(self) -> None:
        """End it early; what the generation needed is let go."""
        self._pieces.close()
