"""Beam search: the most probable continuations of a prompt, several of which are followed at once.

As transformers' (``GenerationMixin._beam_search``): candidates are ranked by the sum of the log-probabilities of their
tokens, after logits processors. A text that ends is kept with that sum divided by its length to the power of the length
penalty.
"""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from ...artifact import CacheDtype
from ..decoding.decoder import Decoder, open_decoder
from ..engine.session import Session
from ..numerics import largest, log_sum_exp
from ..sequence.processors.chain import check_choice
from ..sequence.request import Beams
from ..sequence.sampler import Floats, check_finite
from ..sequence.sequence import ActiveSequence, Generation
from ..sequence.stream import TextStream


@dataclass(frozen=True)
class Hypothesis:
    """A continuation, its score, and the slot of the decoder that has read it."""

    sequence: ActiveSequence
    score: np.float32
    slot: int


class BeamSearch:
    """The search for the continuations of one prompt. Its memory is allocated here.

    Args:
        sequence: the prompt's, without tokens.

    Raises:
        PromptError: there is not enough memory for the KV caches of all beams.
    """

    def __init__(self, session: Session, sequence: ActiveSequence, beams: Beams) -> None:
        self._sequence = sequence
        self._beams = beams
        self._activations: CacheDtype = session.manifest.model.cache_dtype
        self._decoder: Decoder = open_decoder(session, beams.count, sequence.prompt.size, sequence.max_positions)
        self._finished: list[tuple[np.float32, ActiveSequence]] = []

    def run(self, count: int = 1) -> list[Generation]:
        """Return the best ``count`` texts with their scores, best first; fewer where a grammar allows fewer."""
        if self._sequence.expired():
            return [self._sequence.result()]
        logits = self._decoder.prefill(0, self._sequence.prompt)[None]
        running = self._expand([Hypothesis(self._sequence, np.float32(0), 0)], logits)
        while running and self._may_improve(running):
            slots = {hypothesis.slot: hypothesis for hypothesis in running}
            tokens = [slots[slot].sequence.token_ids[-1] for slot in range(len(slots))]
            running = self._expand(running, self._decoder.step(np.array(tokens, dtype=np.int64)))
        return [sequence.result(float(score)) for score, sequence in self._finished[:count]]

    def _expand(self, running: list[Hypothesis], logits: Floats) -> list[Hypothesis]:
        """Return the best continuations by one token, from logits [slots, V]; keep the texts that end."""
        scores = np.stack([self._scores(hypothesis, logits[hypothesis.slot]) for hypothesis in running])
        flat = scores.reshape(-1)
        # As many as leave ``count`` of them where all end tokens of every beam are among the best.
        wanted = max(2, 1 + self._sequence.end_token_count) * self._beams.count
        found = largest(flat, min(wanted, flat.size))
        found = found[np.argsort(-flat[found], kind="stable")][:wanted]
        found = found[flat[found] > -np.inf]
        if not found.size and not self._finished:
            check_choice(flat)
        kept: list[tuple[Hypothesis, ActiveSequence, np.float32]] = []
        for rank, position in enumerate(found.tolist()):
            if rank >= self._beams.count and len(kept) == self._beams.count:
                break
            parent, token = running[position // scores.shape[1]], position % scores.shape[1]
            sequence = parent.sequence.fork()
            sequence.push(token, logits[parent.slot])
            if sequence.finish_reason is None:
                if len(kept) < self._beams.count:
                    kept.append((parent, sequence, np.float32(flat[position])))
            elif rank < self._beams.count:
                self._finish(sequence, np.float32(flat[position]))
        return self._place(kept)

    def _scores(self, hypothesis: Hypothesis, logits: Floats) -> Floats:
        """Return the scores [V] of a hypothesis with each possible next token."""
        check_finite(logits.max(), self._activations)
        processed = hypothesis.sequence.processed(_log_softmax(logits))
        if self._beams.renormalize and processed.max() > -np.inf:
            processed = _log_softmax(processed)
        scores: Floats = processed + hypothesis.score
        return scores

    def _finish(self, sequence: ActiveSequence, score: np.float32) -> None:
        """Keep a text that has ended, if it is one of the best."""
        score = score / np.float32(len(sequence.token_ids) ** self._beams.length_penalty)
        self._finished.append((score, sequence))
        self._finished.sort(key=lambda one: -one[0])
        del self._finished[self._beams.count :]

    def _place(self, kept: list[tuple[Hypothesis, ActiveSequence, np.float32]]) -> list[Hypothesis]:
        """Give each continuation one of the first slots, and copy the cache of its parent where it is another slot."""
        free = set(range(len(kept)))
        slots: list[int | None] = []
        for parent, _, _ in kept:
            slots.append(parent.slot if parent.slot in free else None)
            free.discard(parent.slot)
        placed = []
        for (parent, sequence, score), own in zip(kept, slots, strict=True):
            slot = free.pop() if own is None else own
            if slot != parent.slot:
                self._decoder.copy(parent.slot, slot)
            placed.append(Hypothesis(sequence, score, slot))
        return placed

    def _may_improve(self, running: list[Hypothesis]) -> bool:
        """Return True where a text that has not ended may be better than one of those that have."""
        if len(self._finished) < self._beams.count:
            return True
        if self._beams.early_stopping is True:
            return False
        penalty = self._beams.length_penalty
        longest = self._beams.early_stopping == "never" and penalty > 0
        length = self._sequence.limit if longest else len(running[0].sequence.token_ids)
        return bool(running[0].score / np.float32(length**penalty) > self._finished[-1][0])


def stream_beams(search: BeamSearch, sequence: ActiveSequence) -> TextStream[Generation]:
    """Return the best text as a stream of one chunk: it is known when the search ends."""
    results: list[Generation] = []

    def chunks() -> Generator[str, None, None]:
        results.extend(search.run())
        if results[0].text:
            yield results[0].text

    return TextStream(chunks(), lambda: results[0] if results else sequence.result())


def _log_softmax(logits: Floats) -> Floats:
    result: Floats = logits - np.float32(log_sum_exp(logits))
    return result
