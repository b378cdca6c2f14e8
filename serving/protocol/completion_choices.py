"""The choices of ``/v1/completions``: what is read of a prompt, and what events become, in parts that a whole joins."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...artifact import ModelFacts
from ...runtime.generation.events import Event
from ...runtime.generation.score import Score
from ...runtime.sequence.logprobs import token_text
from ...runtime.text.prompts import Prompt, token_ids
from ...runtime.text.tokenizer import Tokenizer
from .answers import FINISH_REASONS
from .legacy_logprobs import Entry, Offsets, entry_of, joined, legacy_logprobs

Part = dict[str, Any]


@dataclass(frozen=True)
class ReadPrompt:
    """A prompt: its token ids, its text, and where in the text each token begins."""

    token_ids: list[int]
    text: str
    offsets: list[int]


def read_prompt(given: Prompt, tokenizer: Tokenizer | None, facts: ModelFacts, name: str) -> ReadPrompt:
    """Read a prompt; ``name`` is its name in messages.

    Raises:
        PromptError: it is empty, or has ids out of range.
        ContextLengthError: it is longer than the context.
    """
    if isinstance(given, str) and tokenizer is not None:
        tokenizer.check_length(given, facts.context_length, name)
        encoding = tokenizer.encode_with_offsets(given)
        token_ids(encoding.ids, tokenizer, facts, name)
        return ReadPrompt(list(encoding.ids), given, [start for start, _ in encoding.offsets])
    ids = token_ids(given, tokenizer, facts, name).tolist()
    return ReadPrompt(ids, tokenizer.decode(ids) if tokenizer else "", Offsets(tokenizer).push(ids))


class Choice:
    """One continuation of a prompt.

    Args:
        logprobs: how many of the likeliest tokens each list of log-probabilities names; None for no lists.
    """

    def __init__(
        self, index: int, prompt: ReadPrompt, tokenizer: Tokenizer | None, *, echo: bool, logprobs: int | None
    ) -> None:
        self.index = index
        self.prompt = prompt
        self._tokenizer = tokenizer
        self._logprobs = logprobs
        self._offsets = Offsets(tokenizer, len(prompt.text) if echo else 0)

    def prompt_part(self, score: Score | None, *, last: bool) -> Part:
        """Return the prompt as the first part of the answer.

        Args:
            score: that of the prompt; None where it is a single token, or where no log-probabilities are requested.
            last: nothing is generated after it.
        """
        logprobs = None
        if self._logprobs is not None:
            entries = [Entry(token_text(self._tokenizer, self.prompt.token_ids[0]), None, ())]
            if score is not None and score.top is not None:
                scored = zip(score.tokens, score.logprobs, score.top, strict=True)
                entries += [Entry(*one) for one in scored]
            logprobs = legacy_logprobs(entries, self.prompt.offsets, self._logprobs)
        return self._part(self.prompt.text, logprobs, "length" if last else None)

    def part(self, event: Event) -> Part:
        """Return an event as the next part of the answer."""
        logprobs = None
        if self._logprobs is not None:
            entries = [entry_of(token) for token in event.logprobs or ()]
            logprobs = legacy_logprobs(entries, self._offsets.push(event.token_ids), self._logprobs)
        reason = None if event.result is None else FINISH_REASONS[event.result.finish_reason]
        return self._part(event.text, logprobs, reason)

    def _part(self, text: str, logprobs: dict[str, Any] | None, finish_reason: str | None) -> Part:
        return {"index": self.index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def whole(parts: Sequence[Part]) -> Part:
    """Return the parts of one choice, in their order, as the whole."""
    lists = [part["logprobs"] for part in parts]
    return {
        **parts[-1],
        "text": "".join(part["text"] for part in parts),
        "logprobs": None if lists[-1] is None else joined(lists),
    }
