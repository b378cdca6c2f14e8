"""A smaller model of the same vocabulary that proposes tokens."""

from itertools import takewhile
from operator import eq

import numpy as np

from ...errors import UsageError
from ..decoding.decoder import open_decoder
from ..engine.session import Session
from ..numerics import log_sum_exp
from ..sequence.options import Drafter
from ..text.tokenizer import Tokenizer


class DraftModel:
    """A ``Proposer`` of the greedy continuation of another model, which reads the history into a KV cache of its own.

    Args:
        prompt: the number of tokens of the prompt.

    Raises:
        PromptError: there is not enough memory for the cache.
    """

    def __init__(self, session: Session, prompt: int) -> None:
        self._context = session.manifest.model.context_length
        self._decoder = open_decoder(session, 1, min(prompt, self._context), self._context)
        self._read: list[int] = []  # the tokens in the cache: first of the history, then proposed ones
        self._confirmed = 0  # how many of them are of the history

    def begin(self, history: list[int]) -> "DraftProposal":
        """As ``Proposer.begin``."""
        known = self._confirmed
        known += sum(1 for _ in takewhile(bool, map(eq, self._read[known:], history[known:-1])))
        known = self._decoder.rollback(0, min(known, self._decoder.length(0)))
        del self._read[known:]
        self._confirmed = known
        return DraftProposal(self, history[known:], len(history) - known)

    def choose(self, tokens: list[int], confirmed: int) -> tuple[int, float] | None:
        """Read tokens, of which the first ``confirmed`` are of the history; return the likeliest next one, and its
        probability. Return None where they fill this model's context.
        """
        if len(self._read) + len(tokens) >= self._context:
            return None
        if len(tokens) == 1:
            logits = self._decoder.step(np.array(tokens))[0]
        else:
            logits = self._decoder.extend(0, np.array(tokens, dtype=np.int64))[0]
        self._read += tokens
        self._confirmed += confirmed
        token = int(logits.argmax())
        return token, float(np.exp(logits[token] - log_sum_exp(logits)))


class DraftProposal:
    """Guesses after one text; a ``Proposal``. The draft model reads a token only when a guess after it is asked for."""

    def __init__(self, model: DraftModel, unread: list[int], confirmed: int) -> None:
        self._model = model
        self._unread = unread
        self._confirmed = confirmed

    def guess(self) -> tuple[int, float] | None:
        found = self._model.choose(self._unread, self._confirmed)
        self._unread, self._confirmed = [], 0
        return found

    def take(self, token: int) -> None:
        self._unread.append(token)


def draft_cost(session: Session, draft: Session) -> float:
    """Return what a step of a draft costs in steps of a model: the bytes of its weights by those of the model's."""
    return _weight_bytes(draft) / max(1, _weight_bytes(session))


def _weight_bytes(session: Session) -> int:
    entry = session.manifest.files.get(session.manifest.data)
    return 0 if entry is None else entry.size


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
