"""What one prompt became."""

from dataclasses import dataclass

from ..representation import short_repr
from .logprobs import TokenLogprob
from .sequence import FinishReason, Row


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

    __repr__ = short_repr


def generation(row: Row, text: str) -> Generation:
    """The result of a row, whose pieces together are ``text``."""
    return Generation(
        text,
        tuple(row.token_ids),
        tuple(row.prompt.tolist()),
        row.finish_reason or "length",
        None if row.logprobs is None else tuple(row.logprobs),
    )
