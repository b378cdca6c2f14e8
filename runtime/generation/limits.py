"""The limits of a scheduler, checked before memory is taken for it."""

from pathlib import Path

from ...errors import UsageError


def check_limits(
    context: int,
    *,
    slots: int,
    max_length: int | None,
    prefill_tokens: int,
    kept_prompts: int,
    kept_outputs: int,
    prompt_cache: str | Path | None,
) -> None:
    """Check the arguments of ``TextGenerator.scheduler``.

    Args:
        context: the most tokens that the model takes.

    Raises:
        UsageError: one is out of its range, or excludes another.
    """
    if slots < 1:
        raise UsageError(f"slots must be at least 1, not {slots}")
    if prefill_tokens < 1:
        raise UsageError(f"prefill_tokens must be at least 1, not {prefill_tokens}")
    if kept_prompts < 0:
        raise UsageError(f"kept_prompts must be at least 0, not {kept_prompts}")
    if kept_outputs < 0:
        raise UsageError(f"kept_outputs must be at least 0, not {kept_outputs}")
    if prompt_cache is not None and not kept_prompts:
        raise UsageError("prompt_cache is for kept prompts; give kept_prompts, how many there are in memory")
    if max_length is not None and not 2 <= max_length <= context:
        raise UsageError(f"max_length must be between 2 and the model's context of {context:,}, not {max_length}")
