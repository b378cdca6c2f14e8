"""The options of a call that generates text."""

from collections.abc import Sequence
from typing import Protocol, TypedDict

from ..engine.session import Session
from ..text.tokenizer import Tokenizer
from .constraint import Schema


class Drafter(Protocol):
    """A smaller model of the same vocabulary, such as a ``TextGenerator``, that proposes tokens to a larger one."""

    @property
    def session(self) -> Session:
        """The model's graph. Raises UsageError where the model is closed."""
        ...

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The model's tokenizer; None where it has none."""
        ...


class Options(TypedDict, total=False):
    """How to generate; ``TextGenerator.generate`` explains each of them."""

    max_new_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    seed: int | None
    stop: str | Sequence[str] | None
    eos_token_id: int | Sequence[int] | None
    json_schema: Schema | None
    regex: str | None
    grammar: str | None
    logprobs: int | None
    speculate: bool | None
    draft: Drafter | None
