"""Text generation: prompts in, text out, whole or as a stream."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from ..artifact import Manifest
from ..errors import PromptError, UsageError
from .decoder import Decoder, open_decoder, rows_together
from .defaults import GenerationDefaults
from .logprobs import TokenLogprob, check_count
from .prompts import Prompt, Prompts, as_list, prompt_tokens
from .row import FinishReason, Row
from .sampling import Sampler, SamplingSettings
from .score import Score, score
from .session import Session
from .stopping import StopStrings, stop_strings
from .structured import Constraint, Grammars, Schema
from .textstream import TextStream
from .tokenizer import Tokenizer

DEFAULT_NEW_TOKENS = 256  # where neither the caller nor generation_config.json says a number


@dataclass(frozen=True)
class Generation:
    """What one prompt became.

    ``text`` has no special tokens and ends before a stop string; without a tokenizer.json it is empty. ``token_ids``
    are all generated tokens, with the end token and those that spelled the stop string. ``logprobs`` has an entry for
    each of them where they were asked for.

    ``finish_reason`` is "eos" for an end token, "stop" for a stop string or a text that its grammar ends, and "length"
    where the tokens were spent first: a structured text is then unfinished.
    """

    text: str
    token_ids: tuple[int, ...]
    prompt_token_ids: tuple[int, ...]
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] | None = None


class Options(TypedDict, total=False):
    """The keyword arguments of ``TextGenerator.generate``, for its overloads."""

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
    batch_size: int


@dataclass(frozen=True)
class _Plan:
    """What one call asks for, the checkpoint's defaults included."""

    sampling: SamplingSettings
    stops: tuple[str, ...]
    end_tokens: frozenset[int]
    max_new_tokens: int | None
    seed: int
    constraint: Constraint | None = None
    logprobs: int | None = None


class TextGenerator:
    """A loaded text-generation artifact. A call leaves nothing behind, so that several threads may call."""

    def __init__(self, session: Session, tokenizer: Tokenizer | None, defaults: GenerationDefaults) -> None:
        self._session = session
        self.tokenizer = tokenizer
        self.defaults = defaults
        self._grammars = Grammars(tokenizer, session.manifest.model.vocab_size)

    @property
    def manifest(self) -> Manifest:
        return self._session.manifest

    @overload
    def generate(self, prompt: Prompt, **options: Unpack[Options]) -> Generation: ...
    @overload
    def generate(self, prompt: Prompts, **options: Unpack[Options]) -> list[Generation]: ...
    def generate(
        self,
        prompt: Prompt | Prompts,
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
        batch_size: int = 8,
    ) -> Generation | list[Generation]:
        """Continue a prompt, or each of several.

        What is None comes from the checkpoint's generation_config.json, and where that is silent: greedy, no filter,
        256 new tokens. (transformers would then sample with top_k 50 and stop after 20.)

        Args:
            prompt: text or token ids, or a list of either. Results keep the order.
            max_new_tokens: generation ends with "length" after so many, or where the context is full.
            temperature: 0 is greedy; above 0 samples, whatever generation_config.json says about ``do_sample``.
            top_k, top_p, min_p: filters of sampling; they do not change a greedy choice.
            repetition_penalty: over prompt and generated tokens; it does change a greedy choice.
            seed: the same seed gives the same tokens. Each prompt of a list has its own random stream, made of the
                seed and its place in the list, so that its sample does not depend on its neighbours.
            stop: text that ends the generation and is left out of the result.
            eos_token_id: tokens that end the generation; an empty list for none.
            json_schema, regex, grammar: at most one of them, which the whole text then fits: a JSON schema (an object,
                or as JSON text), a regular expression, or a grammar in Lark's notation.
            logprobs: log-probabilities of the generated tokens, and of so many likeliest ones in place of each.
            batch_size: how many prompts are decoded together; the results do not depend on it.

        Raises:
            PromptError: an empty prompt, one that fills the context, ids out of range, no memory for the KV cache.
            UsageError: a setting out of its range; a schema, expression or grammar that cannot be used.
            DependencyError: one of these needs a package that is not installed.
        """
        plan = self._plan(
            max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, stop, eos_token_id
        )
        plan = self._with(plan, json_schema, regex, grammar, logprobs)
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        prompts, listed = as_list(prompt)
        if not listed:
            return self._finish([self._row(prompts[0], plan, 0, "the prompt")])[0]
        rows = [self._row(one, plan, index, f"prompt {index}") for index, one in enumerate(prompts)]
        size = rows_together(self._session, batch_size)
        return [done for start in range(0, len(rows), size) for done in self._finish(rows[start : start + size])]

    def stream(
        self,
        prompt: Prompt,
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
    ) -> TextStream[Generation]:
        """The text of ``generate`` piece by piece: whole characters, and never a part of a stop string.

        The iterator's ``generation`` is what ``generate`` would have returned, once the pieces have ended.

        Raises:
            PromptError, UsageError: as ``generate``, at the call and not at the first piece.
        """
        plan = self._plan(
            max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, stop, eos_token_id
        )
        plan = self._with(plan, json_schema, regex, grammar, logprobs)
        prompts, listed = as_list(prompt)
        if listed:
            raise UsageError("stream takes one prompt; use generate for several")
        row = self._row(prompts[0], plan, 0, "the prompt")
        said: list[str] = []

        def pieces() -> Generator[str, None, None]:
            for _, piece in steps:
                if piece:
                    said.append(piece)
                    yield piece

        steps = advance(self._open([row]), [row])
        return TextStream(pieces(), lambda: _generation(row, "".join(said)))

    @overload
    def score(
        self, text: Prompt, *, context: Prompt | None = None, window: int | None = None, stride: int | None = None
    ) -> Score: ...
    @overload
    def score(
        self,
        text: Prompts,
        *,
        context: Prompt | Prompts | None = None,
        window: int | None = None,
        stride: int | None = None,
    ) -> list[Score]: ...
    def score(
        self,
        text: Prompt | Prompts,
        *,
        context: Prompt | Prompts | None = None,
        window: int | None = None,
        stride: int | None = None,
    ) -> Score | list[Score]:
        """The log-probability of each token of a text, or of each of several texts, given the tokens before it.

        Args:
            text: text or token ids, or a list of either. Results keep the order.
            context: what stands before the text and is not scored itself; one for all, or a list with one for each.
                Context and text are tokenized together, and a token that the border runs through is scored. Without a
                context the first token is not scored.
            window: how many tokens the model reads at most to score one; None for its context length.
            stride: a text longer than the window is scored in windows, each of which scores so many tokens further;
                a token then sees at least ``window - stride + 1`` tokens before it, where there are so many. None
                refuses such a text.

        Raises:
            PromptError: an empty text, one token without a context, a text too long, ids out of range, no memory.
            UsageError: window or stride out of range, or another number of contexts than of texts.
        """
        return score(self._session, self.tokenizer, text, context, window, stride)

    def _plan(
        self,
        max_new_tokens: int | None,
        temperature: float | None,
        top_k: int | None,
        top_p: float | None,
        min_p: float | None,
        repetition_penalty: float | None,
        seed: int | None,
        stop: str | Sequence[str] | None,
        eos_token_id: int | Sequence[int] | None,
    ) -> _Plan:
        default = self.defaults.sampling
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
        stops = stop_strings(self.defaults.stop if stop is None else stop)
        if stops and self.tokenizer is None:
            raise UsageError("stop strings need text, and this artifact has no tokenizer.json; use eos_token_id")
        ends = self.defaults.eos_token_ids if eos_token_id is None else eos_token_id
        end_tokens = frozenset([ends] if isinstance(ends, int | np.integer) else ends)
        vocab_size = self._session.manifest.model.vocab_size
        if wrong := [token for token in end_tokens if not 0 <= token < vocab_size]:
            raise UsageError(f"eos_token_id {wrong[0]} is out of range, the model's ids are 0 to {vocab_size - 1}")
        return _Plan(
            sampling=sampling,
            stops=stops,
            end_tokens=end_tokens,
            max_new_tokens=self.defaults.max_new_tokens if max_new_tokens is None else max_new_tokens,
            seed=int(np.random.SeedSequence().entropy) if seed is None else seed,  # type: ignore[arg-type]
        )

    def _with(
        self, plan: _Plan, json_schema: Schema | None, regex: str | None, grammar: str | None, logprobs: int | None
    ) -> _Plan:
        """The plan with what its tokens are held to, and what is told of them."""
        logprobs = check_count(logprobs, self.manifest.model.vocab_size)
        constraint = self._grammars.constraint(plan.end_tokens, json_schema=json_schema, regex=regex, grammar=grammar)
        return replace(plan, constraint=constraint, logprobs=logprobs)

    def _row(self, prompt: Prompt, plan: _Plan, index: int, name: str) -> Row:
        facts = self._session.manifest.model
        tokens = prompt_tokens(prompt, self.tokenizer, facts, name)
        return Row(
            tokens,
            limit=self._limit(tokens.size, plan, name),
            sampler=Sampler(plan.sampling, tokens, facts.vocab_size, seed=[plan.seed, index]),
            end_tokens=plan.end_tokens,
            stops=StopStrings(plan.stops),
            tokenizer=self.tokenizer,
            constraint=plan.constraint.fresh() if plan.constraint else None,
            top_logprobs=plan.logprobs,
        )

    def _limit(self, prompt: int, plan: _Plan, name: str) -> int:
        """How many tokens this prompt may get: what was asked for, within the context."""
        wanted = plan.max_new_tokens
        if wanted is None and self.defaults.max_length is not None:
            wanted = self.defaults.max_length - prompt
            if wanted < 1:
                raise PromptError(
                    f"{name} has {prompt:,} tokens, generation_config.json's max_length is "
                    f"{self.defaults.max_length:,}; give max_new_tokens"
                )
        context = self._session.manifest.model.context_length
        return min(DEFAULT_NEW_TOKENS if wanted is None else wanted, context - prompt)

    def _open(self, rows: list[Row]) -> Decoder:
        longest = max(row.prompt.size for row in rows)
        # The last token of a row is never read back, so a row needs one position less than its tokens.
        limit = max(row.prompt.size + row.limit - 1 for row in rows)
        return open_decoder(self._session, len(rows), longest, limit)

    def _finish(self, rows: list[Row]) -> list[Generation]:
        texts: list[list[str]] = [[] for _ in rows]
        for index, piece in advance(self._open(rows), rows):
            texts[index].append(piece)
        return [_generation(row, "".join(text)) for row, text in zip(rows, texts, strict=True)]


def _generation(row: Row, text: str) -> Generation:
    return Generation(
        text,
        tuple(row.token_ids),
        tuple(row.prompt.tolist()),
        row.finish_reason or "length",
        None if row.logprobs is None else tuple(row.logprobs),
    )


def advance(decoder: Decoder, rows: list[Row]) -> Iterator[tuple[int, str]]:
    """Generate until every row has ended; yields each row's index with each piece of its text.

    A row's first token follows its own prefill, the others come from steps that all rows take together.
    """
    for index, row in enumerate(rows):
        yield index, row.accept(decoder.prefill(index, row.prompt))
    active = _active(rows)
    while active.any():
        logits = decoder.step(np.array([row.token_ids[-1] for row in rows], dtype=np.int64), active)
        for index in np.flatnonzero(active).tolist():
            yield index, rows[index].accept(logits[index])
        active = _active(rows)


def _active(rows: list[Row]) -> NDArray[np.bool_]:
    return np.array([row.finish_reason is None for row in rows])
