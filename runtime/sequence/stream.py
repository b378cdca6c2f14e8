"""The result of ``TextGenerator.stream``: chunks of text, and after the last one the whole generation."""

from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

Result = TypeVar("Result")


class TextStream(Iterator[str], Generic[Result]):
    """An iterator over chunks of text.

    ``generation`` is None until the last chunk, and then what ``generate`` would have returned.
    """

    def __init__(self, chunks: Generator[str, None, None], finish: Callable[[], Result]) -> None:
        self._chunks = chunks
        self._finish = finish
        self.generation: Result | None = None

    def __next__(self) -> str:
        try:
            return next(self._chunks)
        except StopIteration:
            if self.generation is None:
                self.generation = self._finish()
            raise

    def close(self) -> None:
        """End the stream early and release what the generation needs."""
        self._chunks.close()
