"""The options of a call that generates text."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypedDict

from ..engine.session import Session
from ..text.tokenizer import Tokenizer
from .constraint import Schema
from .processors.base import Processor


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
    """How to generate; ``TextGenerator.generate`` explains each of them.

    Those that ``generation_settings.SETTINGS`` has as well are checked by it; ``stop`` is ``stop_strings`` there.
    """

    max_new_tokens: int | None
    min_new_tokens: int | None
    min_length: int | None
    max_time: float | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    top_h: float | None
    typical_p: float | None
    epsilon_cutoff: float | None
    eta_cutoff: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    no_repeat_ngram_size: int | None
    bad_words_ids: Sequence[Sequence[int]] | None
    sequence_bias: Mapping[tuple[int, ...], float] | Sequence[tuple[Sequence[int], float]] | None
    logit_bias: Mapping[int, float] | Mapping[str, float] | None
    suppress_tokens: Sequence[int] | None
    begin_suppress_tokens: Sequence[int] | None
    forced_bos_token_id: int | None
    forced_eos_token_id: int | Sequence[int] | None
    exponential_decay_length_penalty: tuple[int, float] | None
    logits_processor: Processor | Sequence[Processor] | None
    num_beams: int | None
    length_penalty: float | None
    early_stopping: bool | Literal["never"] | None
    seed: int | None
    stop: str | Sequence[str] | None
    eos_token_id: int | Sequence[int] | None
    json_schema: Schema | None
    regex: str | None
    grammar: str | None
    constrain_after: str | None
    logprobs: int | None
    speculate: bool | None
    draft: Drafter | None
