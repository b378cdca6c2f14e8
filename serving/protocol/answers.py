"""What all answers have: ids, times, the reason of the end, and the counts of tokens."""

import time
import uuid
from typing import Any

from ...runtime.sequence.sequence import FinishReason

FINISH_REASONS: dict[FinishReason, str] = {"eos": "stop", "stop": "stop", "length": "length", "time": "length"}
"""OpenAI's names of the reasons for which a generation ends."""


def new_id(prefix: str) -> str:
    """Return an id that no other answer has: ``cmpl-0a1b…`` with the prefix ``cmpl-``."""
    return f"{prefix}{uuid.uuid4().hex}"


def now() -> int:
    """Return the time in seconds since 1970."""
    return int(time.time())


def usage(
    prompt_tokens: int,
    completion_tokens: int | None = None,
    cached_tokens: int | None = None,
    reasoning_tokens: int | None = None,
) -> dict[str, Any]:
    """Return the counts of tokens of a call.

    Args:
        completion_tokens: None for a call that generates nothing.
        cached_tokens: how many tokens of the prompts were not read again; None to leave that out.
        reasoning_tokens: how many of the generated tokens are in the thought; None to leave that out.
    """
    counts: dict[str, Any] = {"prompt_tokens": prompt_tokens}
    if completion_tokens is not None:
        counts["completion_tokens"] = completion_tokens
    counts["total_tokens"] = prompt_tokens + (completion_tokens or 0)
    if cached_tokens is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
    if reasoning_tokens is not None:
        counts["completion_tokens_details"] = {"reasoning_tokens": reasoning_tokens}
    return counts
