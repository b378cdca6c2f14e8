"""Random operations on the slots of a decoder, checked against single passes without a cache."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from intaglio.contract import ATTENTION_MASK, INPUT_IDS, LOGITS, LOGITS_TO_KEEP, PAST, cache_names
from intaglio.runtime.decoding.decoder import Decoder
from intaglio.runtime.engine.opening import open_session
from intaglio.runtime.engine.session import KVCache
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator

CONTEXT, SLOTS = 160, 3
Reference = Callable[[list[int]], np.ndarray]


def reference_of(folder: Path, kv_cache: KVCache = "exact") -> Reference:
    """Return a function that computes logits [S, V] in one pass without a past, by the unchanged graph."""
    lm = text_generator(folder)
    session, model = open_session(folder, lm.manifest, kv_cache=kv_cache), lm.manifest.model
    dtype = np.int8 if kv_cache == "int8" else np.float32

    def logits(tokens: list[int]) -> np.ndarray:
        feeds = {INPUT_IDS: np.array([tokens]), ATTENTION_MASK: np.ones((1, len(tokens)), dtype=np.int64)}
        feeds[LOGITS_TO_KEEP] = np.array([0])
        for name in cache_names(PAST, model.num_hidden_layers):
            feeds[name] = np.zeros((1, model.num_key_value_heads, 0, session.cache_columns), dtype=dtype)
        found: np.ndarray = session.run(feeds, (LOGITS,))[0][0]
        return found

    return logits


def close(found: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found, wanted, atol=2e-4)


class RandomOperations:
    """Random operations on the slots of a decoder, and the tokens that each slot must hold."""

    def __init__(self, decoder: Decoder, reference: Reference, seed: int) -> None:
        self.decoder, self.reference = decoder, reference
        self.random = np.random.default_rng(seed)
        self.texts: list[list[int]] = [[] for _ in range(SLOTS)]
        self.back: list[bool] = []  # for each rollback, if it reached the length asked for

    def tokens(self, count: int) -> list[int]:
        drawn: list[int] = self.random.integers(3, fakes.VOCAB, count).tolist()
        return drawn

    def prefill(self, slot: int) -> None:
        self.texts[slot] = self.tokens(int(self.random.integers(1, 50)))
        close(self.decoder.prefill(slot, np.array(self.texts[slot])), self.reference(self.texts[slot])[-1])

    def extend(self, slot: int) -> None:
        read = self.tokens(int(self.random.integers(1, 20)))
        keep = int(self.random.integers(1, len(read) + 1))
        if len(self.texts[slot]) + len(read) < CONTEXT:
            self.texts[slot] = self.texts[slot] + read
            close(self.decoder.extend(slot, np.array(read), keep), self.reference(self.texts[slot])[-keep:])

    def step(self) -> None:
        count = int(self.random.integers(1, SLOTS + 1))
        if all(0 < len(text) < CONTEXT for text in self.texts[:count]):
            read = self.tokens(count)
            logits = self.decoder.step(np.array(read)).copy()
            for slot, token in enumerate(read):
                self.texts[slot] = [*self.texts[slot], token]
                close(logits[slot], self.reference(self.texts[slot])[-1])

    def rollback(self, slot: int) -> None:
        wanted = int(self.random.integers(0, len(self.texts[slot]) + 1))
        left = self.decoder.rollback(slot, wanted)
        self.back.append(left == wanted)
        assert left in (wanted, 0)
        self.texts[slot] = self.texts[slot][:left]

    def move(self, source: int, target: int) -> None:
        self.decoder.copy(source, target)
        self.texts[target] = list(self.texts[source])

    def apply_one(self) -> None:
        slot, other = self.random.integers(0, SLOTS, 2).tolist()
        kind = self.random.integers(0, 12)
        if kind == 0:
            self.prefill(slot)
        elif kind < 4:
            self.extend(slot)
        elif kind < 9:
            self.step()
        elif kind < 11:
            self.rollback(slot)
        elif slot != other:
            self.move(slot, other)
        assert [self.decoder.length(r) for r in range(SLOTS)] == [len(text) for text in self.texts]
