"""What the models of tasks without generation have in common."""

from ...artifact import Manifest
from ..engine.session import Session
from ..text.tokenizer import Tokenizer


class TaskModel:
    """A loaded artifact whose task takes one pass. Several threads may call it at once."""

    def __init__(self, session: Session, tokenizer: Tokenizer) -> None:
        self.session = session
        self.tokenizer = tokenizer

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.session.description}>"

    @property
    def manifest(self) -> Manifest:
        return self.session.manifest
