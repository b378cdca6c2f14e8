"""The logits processors of a sequence, in transformers' order."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ....errors import UsageError
from .base import Floats, Processor, Tokens
from .biases import SequenceBias, bad_words
from .ngrams import NoRepeatNgram
from .penalties import OccurrencePenalty, RepetitionPenalty
from .tokens import ForceTokens, LengthDecay, SuppressTokens


class Processors:
    """The processors of one sequence, and the sequence's tokens so far."""

    def __init__(self, steps: Sequence[Processor], prompt: Tokens, limit: int) -> None:
        self._steps = steps
        self._tokens = np.empty(prompt.size + limit, dtype=np.int64)
        self._tokens[: prompt.size] = prompt
        self._length = prompt.size

    def __call__(self, logits: Floats) -> Floats:
        """Return the processed logits [V]; those given stay as they are."""
        tokens = self._tokens[: self._length]
        tokens.flags.writeable = False
        scores = logits.copy()
        for step in self._steps:
            scores = step(tokens, scores)
        return scores

    def push(self, token: int) -> None:
        """Take the token that was chosen."""
        self._tokens[self._length] = token
        self._length += 1

    def copy(self) -> "Processors":
        """Return processors of the same tokens, which may then differ."""
        copied = Processors.__new__(Processors)
        copied._steps = self._steps
        copied._tokens = np.empty_like(self._tokens)
        copied._tokens[: self._length] = self._tokens[: self._length]
        copied._length = self._length
        return copied


def processors_for(
    settings: Mapping[str, Any], own: Sequence[Processor], prompt: Tokens, limit: int, end_tokens: frozenset[int]
) -> Processors | None:
    """Return the processors of a sequence; None where the settings need none.

    Args:
        settings: values of ``generation_settings.SETTINGS``.
        own: the caller's own processors, which come last.
        limit: the most tokens that may follow the prompt.
    """
    value = settings.get
    size = prompt.size
    steps: list[Processor] = []
    if value("sequence_bias"):
        steps.append(SequenceBias(settings["sequence_bias"]))
    if value("logit_bias"):
        steps.append(SequenceBias(settings["logit_bias"]))
    if value("repetition_penalty", 1.0) != 1.0:
        steps.append(RepetitionPenalty(settings["repetition_penalty"]))
    presence, frequency = value("presence_penalty", 0.0), value("frequency_penalty", 0.0)
    if presence or frequency:
        steps.append(OccurrencePenalty(presence, frequency, size))
    if value("no_repeat_ngram_size"):
        steps.append(NoRepeatNgram(settings["no_repeat_ngram_size"]))
    if value("bad_words_ids"):
        steps.append(bad_words(settings["bad_words_ids"], end_tokens))
    shortest = value("min_length", 0) if value("min_new_tokens") is None else size + settings["min_new_tokens"]
    if shortest > size and end_tokens:
        steps.append(SuppressTokens(end_tokens, below=shortest))
    begins_forced = value("forced_bos_token_id") is not None and size == 1
    if begins_forced:
        steps.append(ForceTokens([settings["forced_bos_token_id"]], at=1))
    if value("forced_eos_token_id"):
        steps.append(ForceTokens(settings["forced_eos_token_id"], at=size + limit - 1))
    if value("exponential_decay_length_penalty") and end_tokens:
        start, factor = settings["exponential_decay_length_penalty"]
        steps.append(LengthDecay(size + start, factor, end_tokens))
    if value("suppress_tokens"):
        steps.append(SuppressTokens(settings["suppress_tokens"]))
    if value("begin_suppress_tokens"):
        steps.append(SuppressTokens(settings["begin_suppress_tokens"], at=size + begins_forced))
    steps += own
    return Processors(steps, prompt, limit) if steps else None


def check_choice(scores: Floats) -> None:
    """Check that processed logits leave a token to choose.

    Raises:
        UsageError: all are minus infinity.
    """
    if scores.max() == -np.inf:
        raise UsageError(
            "the settings exclude every token (of bad_words_ids, suppress_tokens, no_repeat_ngram_size, "
            "min_new_tokens, biases and logits_processor); exclude fewer"
        )
