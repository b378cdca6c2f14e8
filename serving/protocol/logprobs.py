"""Log-probabilities of tokens, as chat completions and responses show them.

They are the model's own: before temperature, penalties, filters and grammars.
"""

from typing import Any

from ...runtime.sequence.logprobs import Candidate, TokenLogprob
from ...runtime.text.tokenizer import Tokenizer

LOWEST = -9999.0
"""What OpenAI writes for a probability of 0, whose logarithm JSON cannot show."""


def shown_logprob(logprob: float) -> float:
    """Return a log-probability as JSON can show it."""
    return max(logprob, LOWEST)


def chat_logprob(entry: TokenLogprob, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the entry of one token, with the most likely tokens at its position."""
    return {**_token(entry, tokenizer), "top_logprobs": [_token(one, tokenizer) for one in entry.top]}


def _token(token: TokenLogprob | Candidate, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return a token's text, log-probability and bytes; the bytes of a part of a character are not in its text."""
    return {
        "token": token.text,
        "logprob": shown_logprob(token.logprob),
        "bytes": list(tokenizer.token_bytes(token.token_id)),
    }
