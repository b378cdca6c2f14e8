"""What is known of one request of a load: times of the event loop's clock, and tokens."""

from dataclasses import dataclass, field


@dataclass
class Sample:
    """One request.

    Attributes:
        number: from 0, in the order of the schedule.
        planned: when it was due. Times are counted from here, so that a client or a server that falls behind shows.
        sent: when it was sent.
        chunks: when each part of the answer with text came.
        ended: when the answer was complete, or failed.
        error: a short word such as ``429``, ``timeout`` or ``incomplete``; None where all is well.
        detail: the error in the server's words.
    """

    number: int
    planned: float
    sent: float = 0.0
    chunks: list[float] = field(default_factory=list)
    ended: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    finish_reason: str | None = None
    error: str | None = None
    detail: str = ""

    @property
    def first_token(self) -> float | None:
        """Seconds from the planned time to the first token; None where there was none."""
        return self.chunks[0] - self.planned if self.chunks else None

    @property
    def end_to_end(self) -> float:
        """Seconds from the planned time to the end."""
        return self.ended - self.planned

    @property
    def gaps(self) -> list[float]:
        """Seconds between the parts of the answer."""
        return [after - before for before, after in zip(self.chunks, self.chunks[1:], strict=False)]

    @property
    def per_token(self) -> float | None:
        """Mean seconds between two tokens; None where there are not two."""
        return (self.chunks[-1] - self.chunks[0]) / (self.output_tokens - 1) if self.output_tokens > 1 else None

    def tokens_between(self, start: float, end: float) -> float:
        """Return the tokens of the answer that came in [start, end]; the parts count alike."""
        if not self.chunks:
            return 0.0
        inside = sum(start <= time <= end for time in self.chunks)
        return self.output_tokens * inside / len(self.chunks)
