"""One sequence while tokens are added to it, and what it becomes: a ``Generation``."""

import time
from collections.abc import Set as AbstractSet
from copy import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..representation import short_repr
from ..text.detokenize import Detokenizer
from ..text.tokenizer import Tokenizer
from .constraint import Constraint, Lookahead
from .logprobs import TokenLogprob, token_logprob
from .processors.chain import Processors, check_choice
from .sampler import Floats, Sampler
from .stopping import StopStrings

FinishReason = Literal["eos", "stop", "length", "time"]


@dataclass(frozen=True)
class Generation:
    """The continuation of one prompt.

    ``text`` has no special tokens and ends before a stop string; without a tokenizer.json it is empty. ``token_ids``
    are all generated tokens, with the end token and the tokens of the stop string. ``logprobs`` has an entry for each
    of them where they were requested.

    ``finish_reason`` is "eos" for an end token, "stop" for a stop string or a text that its grammar ends, "length"
    where max_new_tokens or the context is reached first, and "time" for max_time: a structured text is then unfinished.

    ``score`` is that of a beam search: the sum of the tokens' log-probabilities (after logits processors), divided by
    their number to the power of length_penalty. It is None without beams.
    """

    text: str
    token_ids: tuple[int, ...]
    prompt_token_ids: tuple[int, ...]
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] | None = None
    score: float | None = None

    def __repr__(self) -> str:
        return short_repr(self)


class ActiveSequence:
    """A prompt and the tokens generated so far; takes logits until ``finish_reason`` is set.

    Args:
        prompt: int64 [S].
        limit: the most tokens to generate.
        tokenizer: None where the artifact has none; the text then stays empty.
        constraint: which tokens may come next; a fresh one, for this sequence alone.
        top_logprobs: how many of the most likely tokens each entry of ``logprobs`` lists; None for no ``logprobs``.
        processors: the logits processors of this sequence alone; None for none.
        deadline: the time of ``time.monotonic`` after which no more tokens are generated; None for none.
    """

    def __init__(
        self,
        prompt: NDArray[np.int64],
        limit: int,
        sampler: Sampler,
        end_tokens: AbstractSet[int],
        stops: StopStrings,
        tokenizer: Tokenizer | None,
        constraint: Constraint | None = None,
        top_logprobs: int | None = None,
        processors: Processors | None = None,
        deadline: float | None = None,
    ) -> None:
        self.prompt = prompt
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.limit = limit
        self._sampler = sampler
        self._end_tokens = end_tokens
        self._stops = stops
        self._tokenizer = tokenizer
        self._detokenizer: Detokenizer | None = tokenizer.detokenizer() if tokenizer else None
        self._constraint = constraint
        self._processors = processors
        self._deadline = deadline
        self._top_logprobs = top_logprobs or 0
        self._chunks: list[str] = []
        self.logprobs: list[TokenLogprob] | None = None if top_logprobs is None else []

    @property
    def end_token_count(self) -> int:
        """How many tokens end the sequence."""
        return len(self._end_tokens)

    @property
    def max_positions(self) -> int:
        """The most positions of the KV cache that the sequence can need: its last token is never read back."""
        return int(self.prompt.size) + self.limit - 1

    def accept(self, logits: Floats) -> str:
        """Choose the next token from logits [V]; return the text that is certain now, which may be empty."""
        scores = self.processed(logits)
        if self._processors is not None:
            check_choice(scores)
        return self.push(self._sampler.choose(scores), logits)

    def processed(self, logits: Floats) -> Floats:
        """Return logits [V] as the logits processors and the constraint leave them.

        Where the processors exclude every token that the constraint allows, the constraint alone counts.
        """
        if self._processors is None:
            return self._constraint.allow(logits) if self._constraint else logits
        scores = self._processors(logits)
        if self._constraint is None:
            return scores
        allowed = self._constraint.allow(scores)
        return allowed if allowed.max() > -np.inf else self._constraint.allow(logits)

    def push(self, token: int, logits: Floats) -> str:
        """Take the token that was chosen after the model's logits [V]; return the text that is certain now."""
        if self.logprobs is not None:
            self.logprobs.append(token_logprob(logits, token, self._top_logprobs, self._tokenizer))
        return self._take(token)

    def push_forced(self, token: int) -> str:
        """Take the only token that the constraint allows, as ``accept`` would; not where that ``needs_logits``."""
        self._sampler.skip()
        return self._take(token)

    @property
    def needs_logits(self) -> bool:
        """True where logits are used even if there is only one token to choose."""
        return self.logprobs is not None or self._processors is not None

    def ahead(self) -> Lookahead | None:
        """Return what the constraint allows after further tokens; None without a constraint."""
        return None if self._constraint is None else self._constraint.ahead()

    def ends_with(self, token: int) -> bool:
        """Return True for a token that ends the sequence."""
        return token in self._end_tokens

    def expired(self) -> bool:
        """Return True, and end the sequence, where its time is over before its first token."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            self.finish_reason = "time"
        return self.finish_reason is not None

    def fork(self) -> "ActiveSequence":
        """Return a sequence with the same tokens, to which others can be added. It samples nothing."""
        forked = copy(self)
        forked.token_ids = list(self.token_ids)
        forked._chunks = list(self._chunks)
        forked._stops = copy(self._stops)
        forked._detokenizer = self._detokenizer.copy() if self._detokenizer else None
        forked._constraint = self._constraint.copy() if self._constraint else None
        forked._processors = self._processors.copy() if self._processors else None
        forked.logprobs = None if self.logprobs is None else list(self.logprobs)
        return forked

    def result(self, score: float | None = None) -> Generation:
        """Return the generation; "length" is its reason where the sequence was left before its end."""
        return Generation(
            "".join(self._chunks),
            tuple(self.token_ids),
            tuple(self.prompt.tolist()),
            self.finish_reason or "length",
            None if self.logprobs is None else tuple(self.logprobs),
            score,
        )

    def _take(self, token: int) -> str:
        """Add a token; return the text that is certain now."""
        self.token_ids.append(token)
        if self._processors is not None:
            self._processors.push(token)
        chunk = self._text_of(token)
        self._chunks.append(chunk)
        return chunk

    def _text_of(self, token: int) -> str:
        """Set ``finish_reason`` where the token ends the sequence; return the text that is certain now."""
        if token in self._end_tokens:
            self.finish_reason = "eos"
            return self._flush()
        if self._constraint:
            self._constraint.accept(token)
        chunk = self._stops.push(self._detokenizer.push(token)) if self._detokenizer else ""
        if self._stops.found is not None:
            self.finish_reason = "stop"
        elif self._constraint and self._constraint.finished:
            self.finish_reason = "stop"
            chunk += self._flush()
        elif len(self.token_ids) == self.limit:
            self.finish_reason = "length"
            chunk += self._flush()
        elif self._deadline is not None and time.monotonic() > self._deadline:
            self.finish_reason = "time"
            chunk += self._flush()
        return chunk

    def _flush(self) -> str:
        """Return the text that was held back. Unfinished bytes become U+FFFD, which may complete a stop string."""
        rest = self._stops.push(self._detokenizer.flush()) if self._detokenizer else ""
        return rest + self._stops.flush()
