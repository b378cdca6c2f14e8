"""One row of a batch while it generates: its sampler, its text, and why it ended."""

from collections.abc import Set as AbstractSet
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..text.detokenize import Detokenizer
from ..text.tokenizer import Tokenizer
from .constraint import Constraint
from .logprobs import TokenLogprob, token_logprob
from .sampler import Floats, Sampler
from .stopping import StopStrings

FinishReason = Literal["eos", "stop", "length"]


class Row:
    """Takes logits until ``finish_reason`` is set.

    Args:
        prompt: int64 [S].
        limit: the most tokens to generate.
        tokenizer: None where the artifact has none; the text then stays empty.
        constraint: which tokens may come; fresh, for this row alone.
        top_logprobs: how many likeliest tokens ``logprobs`` tells of; None for no ``logprobs``.
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
        self._top_logprobs = top_logprobs or 0
        self.logprobs: list[TokenLogprob] | None = None if top_logprobs is None else []

    def accept(self, logits: Floats) -> str:
        """Choose the next token from logits [V]; the text that is certain now."""
        token = self._sampler.choose(self._constraint.allow(logits) if self._constraint else logits)
        self.token_ids.append(token)
        if self.logprobs is not None:
            self.logprobs.append(token_logprob(logits, token, self._top_logprobs, self._tokenizer))
        if token in self._end_tokens:
            self.finish_reason = "eos"
            return self._close()
        if self._constraint:
            self._constraint.accept(token)
        piece = self._stops.push(self._detokenizer.push(token)) if self._detokenizer else ""
        if self._stops.found is not None:
            self.finish_reason = "stop"
        elif self._constraint and self._constraint.finished:
            self.finish_reason = "stop"
            piece += self._close()
        elif len(self.token_ids) == self.limit:
            self.finish_reason = "length"
            piece += self._close()
        return piece

    def _close(self) -> str:
        """The text that was held back. Unfinished bytes become U+FFFD and may complete a stop string even now."""
        rest = self._stops.push(self._detokenizer.flush()) if self._detokenizer else ""
        return rest + self._stops.flush()
