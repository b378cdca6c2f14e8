"""A smaller model of the same vocabulary that proposes tokens."""

from itertools import takewhile
from operator import eq

import numpy as np

from ...errors import UsageError
from ..decoding.decoder import open_decoder
from ..engine.session import Session
from ..sequence.options import Drafter
from ..text.tokenizer import Tokenizer


class DraftModel:
    """Proposes the greedy continuation of another model, which reads the history into a KV cache of its own.

    Args:
        prompt: the number of tokens of the prompt.

    Raises:
        PromptError: there is not enough memory for the cache.
    """

    def __init__(self, session: Session, prompt: int) -> None:
        self._context = session.manifest.model.context_length
        self._decoder = open_decoder(session, 1, min(prompt, self._context), self._context)
        self._cached: list[int] = []  # the tokens in the cache: first of the history, then proposed ones
        self._confirmed = 0  # how many of them are of the history

    def propose(self, history: list[int], count: int) -> list[int]:
        """Return at most ``count`` tokens; none where the history fills this model's context."""
        count = min(count, self._context - len(history))
        if count < 1:
            return []
        known = self._confirmed
        known += sum(1 for _ in takewhile(bool, map(eq, self._cached[known:], history[known:-1])))
        known = self._decoder.rollback(0, known)
        logits = self._decoder.extend(0, np.array(history[known:], dtype=np.int64))[0]
        self._confirmed = len(history)
        guesses = [int(logits.argmax())]
        while len(guesses) < count:
            guesses.append(int(self._decoder.step(np.array(guesses[-1:]))[0].argmax()))
        self._cached = history + guesses[:-1]
        return guesses


def check_draft(session: Session, tokenizer: Tokenizer | None, draft: Drafter) -> None:
    """Check that token ids have the same meaning for a model and its draft.

    Raises:
        UsageError: they do not; the message has the sizes of both vocabularies.
    """
    refusal = f"{draft.session.folder} cannot draft for {session.folder}"
    vocabularies = [one.backend.get_vocab() for one in (tokenizer, draft.tokenizer) if one is not None]
    if len(vocabularies) == 2 and vocabularies[0] != vocabularies[1]:
        raise UsageError(f"{refusal}: its tokenizer has another vocabulary; use a draft of the same family")
    size, draft_size = session.manifest.model.vocab_size, draft.session.manifest.model.vocab_size
    if draft_size > size:
        raise UsageError(
            f"{refusal}: it has {draft_size:,} token ids, the model has {size:,}; use a draft of the same family"
        )
