"""Decoders against single passes without a cache: slots are prefilled, stepped, rolled back and copied in any order."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio.errors import UnsupportedError
from intaglio.runtime.decoding.decoder import open_decoder
from intaglio.runtime.engine.session import KVCache, Session
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.decoding.random_operations import (
    CONTEXT,
    SLOTS,
    RandomOperations,
    Reference,
    close,
    reference_of,
)
from intaglio.tests.runtime.fakes import text_generator

WINDOW = 6


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
    kv_cache: KVCache = "int8" if request.param == "int8 cache" else "exact"
    try:
        lm = text_generator(folder, kv_cache=kv_cache)
    except UnsupportedError as error:
        pytest.skip(str(error))
    assert lm.session.windowed == ("window" in request.param)
    return lm.session, reference_of(folder, kv_cache)


@pytest.mark.quick_one_in(2)
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("dropped", [1, 2, 6, 64])
def test_random_operations_on_slots_give_the_logits_of_single_passes(
    model: tuple[Session, Reference], seed: int, dropped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intaglio.runtime.graph.sliding.BLOCK", dropped)
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


@pytest.mark.parametrize("dropped", [1, 2, 6, 64])
def test_reversible_tokens_can_be_rolled_back_and_one_more_cannot(
    tmp_path: Path, dropped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intaglio.runtime.graph.sliding.BLOCK", dropped)
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
