"""From the options of a call and the checkpoint's defaults to a request, and from its prompts to sequences."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Unpack

import numpy as np

from ...artifact import ModelFacts
from ...errors import ArtifactError, PromptError, UsageError
from ...files.generation_settings import SETTINGS, CheckpointSettings, check_ids, read_setting
from ..text.prompts import Prompt, prompt_tokens
from ..text.tokenizer import Tokenizer
from .constraint import Constraint, Grammars
from .logprobs import check_count
from .options import Drafter, Options
from .processors.base import Processor
from .processors.chain import processors_for
from .processors.own import OwnProcessor
from .sampler import Sampler, SamplingSettings
from .sequence import ActiveSequence
from .stopping import StopStrings, stop_strings

DEFAULT_NEW_TOKENS = 256  # where neither the caller nor generation_config.json gives a number
SAMPLING = tuple(field.name for field in fields(SamplingSettings))
COUNTED_BY = {"max_length": "max_new_tokens", "min_length": "min_new_tokens"}
"""Settings that count the prompt, and those that do not and take precedence."""


@dataclass(frozen=True)
class Beams:
    """How a beam search works; ``TextGenerator.generate`` explains its options.

    ``renormalize`` makes probabilities of what the logits processors leave.
    """

    count: int
    length_penalty: float
    early_stopping: bool | str
    renormalize: bool


@dataclass(frozen=True)
class Request:
    """The options of one call, with the checkpoint's defaults for those that it leaves out.

    ``settings`` has every value of ``generation_settings.SETTINGS`` that is set. ``beams`` is None without a beam
    search, and ``deadline`` is a time of ``time.monotonic``.
    """

    settings: Mapping[str, Any]
    sampling: SamplingSettings
    beams: Beams | None
    processors: tuple[Processor, ...]
    stops: tuple[str, ...]
    end_tokens: frozenset[int]
    deadline: float | None
    seed: int
    constraint: Constraint | None
    logprobs: int | None
    speculate: bool | None
    draft: Drafter | None


class RequestBuilder:
    """Makes requests and sequences for one model, from its facts, its tokenizer and its defaults."""

    def __init__(self, facts: ModelFacts, tokenizer: Tokenizer | None, defaults: CheckpointSettings) -> None:
        self._facts = facts
        self._tokenizer = tokenizer
        self._defaults = defaults
        self._grammars = Grammars(tokenizer, facts.vocab_size)

    def prepare_constraints(self) -> None:
        """Prepare the vocabulary for structured output; errors as ``Grammars.prepare``."""
        self._grammars.prepare()

    def request(self, **options: Unpack[Options]) -> Request:
        """Return the options of a call, those that are None taken from the defaults.

        Raises:
            UsageError: a setting out of its range, or settings that exclude each other; a schema, expression or grammar
                that cannot be used.
            ArtifactError: the checkpoint's value of a setting that the call does not give cannot be used.
            DependencyError: structured output needs a package that is not installed.
        """
        settings = self._settings(options)
        seed = options.get("seed")
        if seed is not None and seed < 0:
            raise UsageError(f"seed must be 0 or more, not {seed}")
        stops = stop_strings(settings.get("stop_strings", ()))
        if stops and self._tokenizer is None:
            raise UsageError("stop strings need text, and this artifact has no tokenizer.json; use eos_token_id")
        speculate, draft = options.get("speculate"), options.get("draft")
        if speculate is False and draft is not None:
            raise UsageError("draft proposes tokens, and speculate=False forbids proposals; give one of the two")
        end_tokens = frozenset(settings.get("eos_token_id", ()))
        constraint = self._grammars.constraint(
            end_tokens,
            json_schema=options.get("json_schema"),
            regex=options.get("regex"),
            grammar=options.get("grammar"),
            after=options.get("constrain_after"),
        )
        beams = _beams(settings)
        if beams is not None and (speculate or draft is not None):
            raise UsageError("a beam search does not speculate: leave out speculate and draft, or give num_beams=1")
        return Request(
            settings=settings,
            sampling=SamplingSettings(**{name: settings[name] for name in SAMPLING if name in settings}),
            beams=beams,
            processors=_own_processors(options.get("logits_processor")),
            stops=stops,
            end_tokens=end_tokens,
            deadline=time.monotonic() + settings["max_time"] if "max_time" in settings else None,
            seed=int(np.random.SeedSequence().entropy) if seed is None else seed,  # type: ignore[arg-type]
            constraint=constraint,
            logprobs=check_count(options.get("logprobs"), self._facts.vocab_size),
            speculate=speculate,
            draft=draft,
        )

    def sequence(
        self, prompt: Prompt, request: Request, name: str, index: int = 0, repetition: int = 0
    ) -> ActiveSequence:
        """Return the sequence of a prompt.

        Args:
            name: the prompt's name in messages.
            index: the prompt's position in the list of its call.
            repetition: which of several sequences of the same prompt.

        Raises:
            PromptError: an empty prompt, one that fills the context, or ids out of range.
        """
        tokens = prompt_tokens(prompt, self._tokenizer, self._facts, name)
        limit = self._limit(tokens.size, request, name)
        seed = [request.seed, index, repetition] if repetition else [request.seed, index]
        return ActiveSequence(
            tokens,
            limit=limit,
            sampler=Sampler(request.sampling, seed, self._facts.cache_dtype),
            end_tokens=request.end_tokens,
            stops=StopStrings(request.stops),
            tokenizer=self._tokenizer,
            constraint=request.constraint.fresh() if request.constraint else None,
            top_logprobs=request.logprobs,
            processors=processors_for(request.settings, request.processors, tokens, limit, request.end_tokens),
            deadline=request.deadline,
        )

    def _settings(self, options: Options) -> dict[str, Any]:
        """Return the settings of a call by their names in ``SETTINGS``: those given, and the defaults of the others."""
        named = {"stop_strings" if name == "stop" else name: value for name, value in options.items()}
        given = {}
        for name in SETTINGS.keys() & named.keys():
            if named[name] is not None:
                # The messages about stop strings are those of ``stop_strings``.
                given[name] = named[name] if name == "stop_strings" else read_setting(name, named[name])
                check_ids(name, given[name], self._facts.vocab_size)
        superseded = {counted: None for counted, other in COUNTED_BY.items() if other in given}
        if problems := self._defaults.applied_problems({**given, **superseded}):
            remedies = [f"give {_option(key)}" for key in problems if _option(key) in Options.__annotations__]
            remedies += ["load the artifact with a generation_config of yours"]
            raise ArtifactError(f"{self._defaults.path}: {'; '.join(problems.values())}; {', or '.join(remedies)}")
        defaults = {name: value for name, value in self._defaults.values.items() if name not in superseded}
        return {**defaults, **given}

    def _limit(self, prompt: int, request: Request, name: str) -> int:
        """Return how many tokens may follow a prompt of so many: those requested, within the context."""
        wanted = request.settings.get("max_new_tokens")
        longest = request.settings.get("max_length")
        if wanted is None and longest is not None:
            wanted = longest - prompt
            if wanted < 1:
                raise PromptError(
                    f"{name} has {prompt:,} tokens, {self._defaults.path.name}'s max_length is {longest:,}; "
                    "give max_new_tokens"
                )
        return min(DEFAULT_NEW_TOKENS if wanted is None else wanted, self._facts.context_length - prompt)


def _option(key: str) -> str:
    """Return the name of the option that replaces a key of the file."""
    return "stop" if key == "stop_strings" else COUNTED_BY.get(key, key)


def _beams(settings: Mapping[str, Any]) -> Beams | None:
    count = settings.get("num_beams", 1)
    if count == 1:
        return None
    if settings.get("temperature"):
        raise UsageError(
            f"num_beams is {count}, which searches for the most likely text, and temperature is "
            f"{settings['temperature']}, which samples; give temperature=0 or num_beams=1"
        )
    return Beams(
        count,
        settings.get("length_penalty", 1.0),
        settings.get("early_stopping", False),
        settings.get("renormalize_logits", False),
    )


def _own_processors(given: Processor | Sequence[Processor] | None) -> tuple[Processor, ...]:
    if given is None:
        return ()
    functions = given if isinstance(given, Sequence) else [given]
    return tuple(OwnProcessor(function) for function in functions)
