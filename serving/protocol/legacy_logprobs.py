"""Log-probabilities in the form of ``/v1/completions``: parallel lists of tokens, offsets and likeliest tokens."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...runtime.sequence.logprobs import Candidate, TokenLogprob
from ...runtime.text.tokenizer import Tokenizer

LISTS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


@dataclass(frozen=True)
class Entry:
    """A token, its log-probability and the likeliest ones at its place; None for a text's first, which has none."""

    text: str
    logprob: float | None
    top: tuple[Candidate, ...]


class Offsets:
    """Where in a text tokens begin, in characters: the end of the text that the tokens before them complete.

    Args:
        begin: the offset of the first token.
    """

    def __init__(self, tokenizer: Tokenizer | None, begin: int = 0) -> None:
        self._detokenizer = tokenizer.detokenizer() if tokenizer else None
        self.end = begin

    def push(self, tokens: Iterable[int]) -> list[int]:
        """Return the offset of each token."""
        found = []
        for token in tokens:
            found.append(self.end)
            self.end += len(self._detokenizer.push(token)) if self._detokenizer else 0
        return found


def entry_of(token: TokenLogprob) -> Entry:
    """Return the entry of a generated token."""
    return Entry(token.text, token.logprob, token.top)


def legacy_logprobs(entries: Sequence[Entry], offsets: Sequence[int], count: int) -> dict[str, Any]:
    """Return the lists of ``logprobs``.

    Args:
        count: how many of the likeliest tokens to name. The token itself is named as well.
    """
    return {
        "tokens": [entry.text for entry in entries],
        "token_logprobs": [entry.logprob for entry in entries],
        "top_logprobs": [_named(entry, count) for entry in entries] if count else None,
        "text_offset": list(offsets),
    }


def joined(lists: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the lists of consecutive parts of a text as those of the whole."""
    return {
        name: None if any(part[name] is None for part in lists) else [one for part in lists for one in part[name]]
        for name in LISTS
    }


def _named(entry: Entry, count: int) -> dict[str, float] | None:
    """Return the likeliest tokens by their text; of several with one text, as parts of characters, the likeliest."""
    if entry.logprob is None:
        return None
    named: dict[str, float] = {}
    for candidate in entry.top[:count]:
        named.setdefault(candidate.text, candidate.logprob)
    named.setdefault(entry.text, entry.logprob)
    return named
