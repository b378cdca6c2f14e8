"""One row of a batch while it generates: its sampler, its text, and why it ended."""

from collections.abc import Set as AbstractSet
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .detokenize import Detokenizer
from .sampling import Floats, Sampler
from .stopping import StopStrings

FinishReason = Literal["eos", "stop", "length"]


class Row:
    """Takes logits until ``finish_reason`` is set.

    Args:
        prompt: int64 [S].
        limit: the most tokens to generate.
        detokenizer: None without a tokenizer; the text then stays empty.
    """

    def __init__(
        self,
        prompt: NDArray[np.int64],
        limit: int,
        sampler: Sampler,
        end_tokens: AbstractSet[int],
        stops: StopStrings,
        detokenizer: Detokenizer | None,
    ) -> None:
        self.prompt = prompt
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.limit = limit
        self._sampler = sampler
        self._end_tokens = end_tokens
        self._stops = stops
        self._detokenizer = detokenizer

    def accept(self, logits: Floats) -> str:
        """Choose the next token from logits [V]; the text that is certain now."""
        token = self._sampler.choose(logits)
        self.token_ids.append(token)
        if token in self._end_tokens:
            self.finish_reason = "eos"
            return self._close()
        piece = self._stops.push(self._detokenizer.push(token)) if self._detokenizer else ""
        if self._stops.found is not None:
            self.finish_reason = "stop"
        elif len(self.token_ids) == self.limit:
            self.finish_reason = "length"
            piece += self._close()
        return piece

    def _close(self) -> str:
        """The text that was held back. Unfinished bytes become U+FFFD and may complete a stop string even now."""
        rest = self._stops.push(self._detokenizer.flush()) if self._detokenizer else ""
        return rest + self._stops.flush()
