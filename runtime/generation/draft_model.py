"""A smaller model of the same vocabulary as a proposer of tokens."""

from itertools import takewhile
from operator import eq

import numpy as np

from ...errors import UsageError
from ..decoding.decoder import open_decoder
from ..engine.session import Session
from ..text.tokenizer import Tokenizer


class DraftModel:
    """Proposes the greedy continuation by another model, whose cache follows the history.

    Raises:
        PromptError: not enough memory for its cache.
    """

    def __init__(self, session: Session, prompt: int) -> None:
        self._context = session.manifest.model.context_length
        self._decoder = open_decoder(session, 1, min(prompt, self._context), self._context)
        self._held: list[int] = []  # what its cache holds: first what is certain, then guesses of its own
        self._certain = 0

    def propose(self, history: list[int], count: int) -> list[int]:
        count = min(count, self._context - len(history))
        if count < 1:
            return []
        known = self._certain
        known += sum(1 for _ in takewhile(bool, map(eq, self._held[known:], history[known:-1])))
        known = self._decoder.rollback(0, known)
        logits = self._decoder.extend(0, np.array(history[known:], dtype=np.int64))[0]
        self._certain = len(history)
        guesses = [int(logits.argmax())]
        while len(guesses) < count:
            guesses.append(int(self._decoder.step(np.array(guesses[-1:]))[0].argmax()))
        self._held = history + guesses[:-1]
        return guesses


def check_draft(session: Session, tokenizer: Tokenizer | None, draft: Session, theirs: Tokenizer | None) -> None:
    """Refuse a draft whose token ids mean something else.

    Raises:
        UsageError: with both vocabularies.
    """
    ours, other = session.manifest.model.vocab_size, draft.manifest.model.vocab_size
    same = tokenizer is None or theirs is None or tokenizer.backend.get_vocab() == theirs.backend.get_vocab()
    if not same:
        raise UsageError(f"{draft.folder} cannot draft for {session.folder}: its tokenizer has another vocabulary")
    if other > ours:
        raise UsageError(
            f"{draft.folder} cannot draft for {session.folder}: it has {other:,} token ids, the model has {ours:,}; "
            "take one of the same family"
        )
