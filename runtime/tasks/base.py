"""What the models of tasks without generation have in common."""

from typing import Self

from ...artifact import Manifest
from ...errors import UsageError
from ..engine.session import Session
from ..text.tokenizer import Tokenizer


class TaskModel:
    """A loaded artifact whose task takes one pass. Several threads may call it at once.

    ``close``, or the end of a ``with`` block, releases the weights; calls that are running in other threads finish.
    """

    def __init__(self, session: Session, tokenizer: Tokenizer) -> None:
        self._loaded: Session | None = session
        self.manifest: Manifest = session.manifest
        self.tokenizer = tokenizer

    def __repr__(self) -> str:
        closed = f"{self.manifest.family} {self.manifest.precision}, closed"
        return f"<{type(self).__name__} {closed if self._loaded is None else self._loaded.description}>"

    @property
    def session(self) -> Session:
        """The loaded graph. Raises UsageError where the model is closed."""
        if self._loaded is None:
            raise UsageError("the model is closed; load it again")
        return self._loaded

    def close(self) -> None:
        """Release the weights. Later calls raise UsageError; closing twice does nothing."""
        self._loaded = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
