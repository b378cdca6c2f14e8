"""From the options of a call and the checkpoint's defaults to a request, and from its prompts to sequences."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...artifact import ModelFacts
from ...errors import PromptError, UsageError
from ..text.prompts import Prompt, prompt_tokens
from ..text.tokenizer import Tokenizer
from .constraint import Constraint, Grammars, Schema
from .defaults import GenerationDefaults
from .logprobs import check_count
from .options import Drafter
from .sampler import Sampler, SamplingSettings
from .sequence import ActiveSequence
from .stopping import StopStrings, stop_strings

DEFAULT_NEW_TOKENS = 256  # where neither the caller nor generation_config.json gives a number


@dataclass(frozen=True)
class Request:
    """The options of one call, with the checkpoint's defaults for those that it leaves out."""

    sampling: SamplingSettings
    stops: tuple[str, ...]
    end_tokens: frozenset[int]
    max_new_tokens: int | None
    seed: int
    constraint: Constraint | None
    logprobs: int | None
    speculate: bool | None
    draft: Drafter | None


class RequestBuilder:
    """Makes requests and sequences for one model, from its facts, its tokenizer and its defaults."""

    def __init__(self, facts: ModelFacts, tokenizer: Tokenizer | None, defaults: GenerationDefaults) -> None:
        self._facts = facts
        self._tokenizer = tokenizer
        self._defaults = defaults
        self._grammars = Grammars(tokenizer, facts.vocab_size)

    def request(
        self,
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        eos_token_id: int | Sequence[int] | None = None,
        json_schema: Schema | None = None,
        regex: str | None = None,
        grammar: str | None = None,
        logprobs: int | None = None,
        speculate: bool | None = None,
        draft: Drafter | None = None,
    ) -> Request:
        """Return the options of a call, those that are None taken from the defaults.

        Raises:
            UsageError: a setting out of its range; a schema, expression or grammar that cannot be used.
            DependencyError: structured output needs a package that is not installed.
        """
        default = self._defaults.sampling
        sampling = SamplingSettings(
            temperature=default.temperature if temperature is None else temperature,
            top_k=default.top_k if top_k is None else top_k,
            top_p=default.top_p if top_p is None else top_p,
            min_p=default.min_p if min_p is None else min_p,
            repetition_penalty=default.repetition_penalty if repetition_penalty is None else repetition_penalty,
        )
        if max_new_tokens is not None and max_new_tokens < 1:
            raise UsageError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
        if seed is not None and seed < 0:
            raise UsageError(f"seed must be 0 or more, not {seed}")
        stops = stop_strings(self._defaults.stop if stop is None else stop)
        if stops and self._tokenizer is None:
            raise UsageError("stop strings need text, and this artifact has no tokenizer.json; use eos_token_id")
        end_tokens = self._end_tokens(eos_token_id)
        if speculate is False and draft is not None:
            raise UsageError("draft proposes tokens, and speculate=False forbids proposals; give one of the two")
        return Request(
            sampling=sampling,
            stops=stops,
            end_tokens=end_tokens,
            max_new_tokens=self._defaults.max_new_tokens if max_new_tokens is None else max_new_tokens,
            seed=int(np.random.SeedSequence().entropy) if seed is None else seed,  # type: ignore[arg-type]
            constraint=self._grammars.constraint(end_tokens, json_schema=json_schema, regex=regex, grammar=grammar),
            logprobs=check_count(logprobs, self._facts.vocab_size),
            speculate=speculate,
            draft=draft,
        )

    def sequence(self, prompt: Prompt, request: Request, name: str, index: int = 0) -> ActiveSequence:
        """Return the sequence of a prompt.

        Args:
            name: the prompt's name in messages.
            index: the prompt's position in the list of its call.

        Raises:
            PromptError: an empty prompt, one that fills the context, or ids out of range.
        """
        tokens = prompt_tokens(prompt, self._tokenizer, self._facts, name)
        return ActiveSequence(
            tokens,
            limit=self._limit(tokens.size, request, name),
            sampler=Sampler(request.sampling, tokens, self._facts.vocab_size, seed=[request.seed, index]),
            end_tokens=request.end_tokens,
            stops=StopStrings(request.stops),
            tokenizer=self._tokenizer,
            constraint=request.constraint.fresh() if request.constraint else None,
            top_logprobs=request.logprobs,
        )

    def _end_tokens(self, given: int | Sequence[int] | None) -> frozenset[int]:
        ends = self._defaults.eos_token_ids if given is None else given
        tokens = frozenset([ends] if isinstance(ends, int | np.integer) else ends)
        if wrong := [token for token in tokens if not 0 <= token < self._facts.vocab_size]:
            raise UsageError(
                f"eos_token_id {wrong[0]} is out of range, the model's ids are 0 to {self._facts.vocab_size - 1}"
            )
        return tokens

    def _limit(self, prompt: int, request: Request, name: str) -> int:
        """Return how many tokens may follow a prompt of so many: those requested, within the context."""
        wanted = request.max_new_tokens
        if wanted is None and self._defaults.max_length is not None:
            wanted = self._defaults.max_length - prompt
            if wanted < 1:
                raise PromptError(
                    f"{name} has {prompt:,} tokens, generation_config.json's max_length is "
                    f"{self._defaults.max_length:,}; give max_new_tokens"
                )
        return min(DEFAULT_NEW_TOKENS if wanted is None else wanted, self._facts.context_length - prompt)
