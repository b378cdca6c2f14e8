"""Decoders against single passes without a cache: slots are prefilled, stepped, rolled back and copied in any order."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio.contract import ATTENTION_MASK, INPUT_IDS, LOGITS, LOGITS_TO_KEEP, PAST, cache_names
from intaglio.errors import UnsupportedError
from intaglio.runtime.decoding.decoder import Decoder, open_decoder
from intaglio.runtime.engine.opening import open_session
from intaglio.runtime.engine.session import KVCache, Session
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator

CONTEXT, SLOTS = 160, 3
WINDOW = 6
Reference = Callable[[list[int]], np.ndarray]


def reference_of(folder: Path, kv_cache: KVCache = "auto") -> Reference:
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


KINDS: dict[str, dict[str, Any]] = {
    "shared": {},
    "windowed": {"layer_windows": (WINDOW, None)},
    "windows alone": {"layer_windows": (WINDOW, 2 * WINDOW)},
    "standard": {"target": "standard"},
    "int8 cache": {},
}


@pytest.fixture(scope="module", params=list(KINDS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, Reference]:
    folder = tmp_path_factory.mktemp("decoder") / "lm"
    fakes.language_model(folder, context_length=CONTEXT, **KINDS[request.param])
    kv_cache: KVCache = "int8" if request.param == "int8 cache" else "auto"
    try:
        lm = text_generator(folder, kv_cache=kv_cache)
    except UnsupportedError as error:
        pytest.skip(str(error))
    assert lm.session.windowed == ("window" in request.param)
    return lm.session, reference_of(folder, kv_cache)


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


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("slack", [1, 5, 64])
def test_random_operations_on_slots_give_the_logits_of_single_passes(
    model: tuple[Session, Reference], seed: int, slack: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intaglio.runtime.graph.sliding.LEAST_SLACK", slack)
    monkeypatch.setattr("intaglio.runtime.decoding.prefill.PREFILL_CHUNK", 7)
    monkeypatch.setattr("intaglio.runtime.decoding.in_place.MASK_STEP", 16)
    session, reference = model
    operations = RandomOperations(open_decoder(session, SLOTS, 10, CONTEXT), reference, seed)
    for slot in range(SLOTS):
        operations.prefill(slot)
    for _ in range(100):
        operations.apply_one()
    assert any(operations.back)
    assert all(operations.back) or session.windowed


def test_buffers_grow_once_memory_is_free(model: tuple[Session, Reference], monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter([0])
    monkeypatch.setattr("intaglio.runtime.decoding.cache.available_memory", lambda: next(free, 10**9))
    monkeypatch.setattr("intaglio.runtime.decoding.cache.STEP", 4)
    monkeypatch.setattr("intaglio.runtime.decoding.cache.HEADROOM", 1)
    session, reference = model
    operations = RandomOperations(open_decoder(session, SLOTS, 1, CONTEXT), reference, 0)
    for slot in range(SLOTS):
        operations.prefill(slot)
    for _ in range(100):
        operations.apply_one()


@pytest.mark.parametrize("slack", [1, 5, 64])
def test_reversible_tokens_can_be_rolled_back_and_one_more_cannot(
    tmp_path: Path, slack: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intaglio.runtime.graph.sliding.LEAST_SLACK", slack)
    lm = text_generator(fakes.language_model(tmp_path / "lm", context_length=CONTEXT, layer_windows=(WINDOW, None)))
    decoder = open_decoder(lm.session, 1, 1, CONTEXT)
    for length in range(1, 130, 3):
        decoder.prefill(0, np.full(length, 9))
        reach = decoder.reversible(0)
        assert 1 <= reach <= CONTEXT - length
        decoder.extend(0, np.full(reach, 8))
        assert decoder.rollback(0, length + 1) == length + 1
        if length + reach < CONTEXT:
            decoder.prefill(0, np.full(length, 9))
            decoder.extend(0, np.full(reach + 1, 8))
            assert decoder.rollback(0, length + 1) == 0


def test_inactive_slots_do_not_limit_the_others(model: tuple[Session, Reference]) -> None:
    session, reference = model
    decoder = open_decoder(session, 2, 100, CONTEXT)
    decoder.prefill(0, np.full(CONTEXT, 7))  # full to the last position
    decoder.prefill(1, np.array([5, 6]))
    text = [5, 6]
    for token in range(20, 40):
        text.append(token)
        close(decoder.step(np.array([3, token]), np.array([False, True]))[1], reference(text)[-1])
    assert (decoder.length(0), decoder.length(1)) == (CONTEXT, 22)
