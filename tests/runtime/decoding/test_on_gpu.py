"""The KV cache on a GPU: the same tokens as on the CPU, and nothing of the cache goes to the host or comes from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio.artifact import read_manifest
from intaglio.contract import ATTENTION_MASK, INPUT_IDS, LOGITS, LOGITS_TO_KEEP
from intaglio.errors import PromptError
from intaglio.machine import GpuMemory
from intaglio.runtime import TextGenerator
from intaglio.runtime.decoding.decoder import Decoder, open_decoder
from intaglio.tests.runtime import fake_gpu, fakes
from intaglio.tests.runtime.decoding.random_operations import (
    CONTEXT,
    SLOTS,
    RandomOperations,
    Reference,
    reference_of,
)
from intaglio.tests.runtime.fake_gpu import FakeGpu
from intaglio.tests.runtime.fakes import text_generator

KINDS: dict[str, dict[str, Any]] = {
    "shared": {},
    "windowed": {"layer_windows": (6, None)},
    "standard": {"target": "standard"},
}
Both = Callable[[Callable[[TextGenerator], object]], None]
PROMPTS = [[5, 6, 7], [9] * 30, [20, 30, 40, 50, 60, 2, 1] * 3, [11], list(range(3, 90)), [8, 9] * 40]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    return fake_gpu.install(monkeypatch)


@pytest.fixture(scope="module", params=list(KINDS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("gpu") / "lm"
    return fakes.language_model(made, context_length=CONTEXT, **KINDS[request.param])


def on_gpu(folder: Path, gpu: FakeGpu) -> TextGenerator:
    """Load an artifact on a GPU that has no room for a cache of the longest text, and so keeps windows."""
    model = read_manifest(folder)
    gpu.memory = GpuMemory(fake_gpu.NAME, model.files[model.data].size if model.data in model.files else 0)
    lm = text_generator(folder, device="cuda")
    gpu.memory = None
    assert lm.session.windowed == (model.model.layer_windows[0] is not None)
    return lm


@pytest.fixture
def reference(folder: Path, request: pytest.FixtureRequest) -> Reference:
    # Made before the fake device, where ONNX Runtime is the real one.
    return reference_of(folder)


def test_random_operations_on_slots_give_the_logits_of_single_passes(
    folder: Path, reference: Reference, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intaglio.runtime.decoding.prefill.PREFILL_CHUNK", 7)
    monkeypatch.setattr("intaglio.runtime.decoding.in_place.MASK_STEP", 16)
    monkeypatch.setattr("intaglio.runtime.decoding.cache.STEP", 4)
    monkeypatch.setattr("intaglio.runtime.decoding.cache.HEADROOM", 1)
    monkeypatch.setattr("intaglio.runtime.graph.sliding.BLOCK", 6)
    lm = on_gpu(folder, gpu)
    operations = RandomOperations(open_decoder(lm.session, SLOTS, 1, CONTEXT), reference, 0)
    gpu.forget()
    for slot in range(SLOTS):
        operations.prefill(slot)
    for _ in range(100):
        operations.apply_one()
    assert any(operations.back)
    assert all(operations.back) or lm.session.windowed
    # Besides the graph's own inputs only shapes, rows and positions go to the device: see the small graphs.
    assert set(gpu.to_host) == {LOGITS}
    assert max(gpu.to_device.values()) < 2_000_000


def moved_by(gpu: FakeGpu, edit: Callable[[], object]) -> dict[str, int]:
    """Return the bytes that an operation moves between host and device, by name."""
    gpu.forget()
    edit()
    return dict(gpu.to_device + gpu.to_host)


def filled(lm: TextGenerator) -> Decoder:
    """Return a decoder of three slots that have read 40, 50 and 60 tokens and taken a step."""
    decoder = open_decoder(lm.session, 3, 1, CONTEXT)
    for slot in range(3):
        decoder.prefill(slot, np.arange(3, 43 + 10 * slot))
    decoder.step(np.array([5, 6, 7]))
    return decoder


@pytest.mark.parametrize("folder", ["shared", "windowed"], indirect=True)
def test_a_step_moves_tokens_and_mask_in_and_logits_out_and_edits_move_nothing(folder: Path, gpu: FakeGpu) -> None:
    decoder = filled(on_gpu(folder, gpu))
    moved = moved_by(gpu, lambda: decoder.step(np.array([8, 9, 10])))
    assert moved.keys() == {INPUT_IDS, ATTENTION_MASK, LOGITS}
    assert (moved[INPUT_IDS], moved[LOGITS]) == (3 * 8, 3 * fakes.VOCAB * 4)
    assert moved_by(gpu, lambda: decoder.rollback(1, 45)) == {}
    assert moved_by(gpu, lambda: decoder.copy(2, 0)) == {}
    assert decoder.length(0) == decoder.length(2) == 62
    verified = moved_by(gpu, lambda: decoder.extend(2, np.array([1, 2, 3, 4]), keep=4))
    assert verified.keys() == {INPUT_IDS, ATTENTION_MASK, LOGITS, LOGITS_TO_KEEP}
    assert verified[LOGITS] == 4 * fakes.VOCAB * 4


@pytest.mark.parametrize("folder", ["standard"], indirect=True)
def test_edits_of_a_growing_cache_move_shapes_and_positions_alone(folder: Path, gpu: FakeGpu) -> None:
    decoder = filled(on_gpu(folder, gpu))
    passed = {INPUT_IDS, ATTENTION_MASK, LOGITS_TO_KEEP, LOGITS}
    assert moved_by(gpu, lambda: decoder.step(np.array([8, 9, 10]))).keys() == passed
    for edit in (lambda: decoder.rollback(1, 45), lambda: decoder.copy(2, 0)):
        assert set(moved_by(gpu, edit)) <= {"row", "positions"}
    joined = moved_by(gpu, lambda: decoder.step(np.array([8, 9, 10])))
    assert {name.partition(".")[0] for name in joined} == passed | {"shape"}


def test_growing_moves_sizes_alone_and_returns_what_was_freed(
    tmp_path: Path, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intaglio.runtime.decoding.cache.STEP", 4)
    monkeypatch.setattr("intaglio.runtime.decoding.cache.HEADROOM", 1)
    lm = text_generator(fakes.language_model(tmp_path / "lm", context_length=CONTEXT), device="cuda")
    decoder = open_decoder(lm.session, 1, 1, CONTEXT)
    decoder.prefill(0, np.arange(3, 7))
    before = gpu.trims
    moved = moved_by(gpu, lambda: [decoder.step(np.array([5])) for _ in range(30)])
    assert moved.keys() == {INPUT_IDS, ATTENTION_MASK, LOGITS, "shape"}
    assert gpu.trims > before


@pytest.fixture
def both(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Both:
    """Return a check that something generated on a GPU is what is generated on the CPU by ONNX Runtime's kernels."""
    on_cpu = text_generator(folder, kernels="onnxruntime")
    gpu = fake_gpu.install(monkeypatch)
    lm = on_gpu(folder, gpu)

    def check(generated: Callable[[TextGenerator], object]) -> None:
        gpu.forget()
        assert generated(lm) == generated(on_cpu)
        assert set(gpu.to_host) == {LOGITS}

    return check


def test_batches_beams_samples_and_scores_are_the_cpus(both: Both) -> None:
    def ids(lm: TextGenerator, **options: Any) -> list[tuple[int, ...]]:
        found = lm.generate(PROMPTS[:4], max_new_tokens=20, eos_token_id=[], **options)
        return [one.token_ids for one in found]

    both(lambda lm: ids(lm, batch_size=3))
    both(lambda lm: ids(lm, num_beams=3))
    both(lambda lm: ids(lm, batch_size=2, temperature=0.8, seed=1, num_return_sequences=2))
    both(lambda lm: [round(one.total, 3) for one in lm.score(PROMPTS[:3])])


def test_speculation_and_conversations_are_the_cpus(both: Both) -> None:
    def alone(lm: TextGenerator) -> list[tuple[int, ...]]:
        speculate = lm.session.manifest.target == "ort"
        return [lm.generate(one, max_new_tokens=30, speculate=speculate).token_ids for one in PROMPTS]

    def turns(lm: TextGenerator) -> list[tuple[int, ...]]:
        long = PROMPTS[4]
        histories = (long, [*long, 7, 8], long[:20], [*long[:20], 9, 9])
        with lm.conversation() as conversation:
            return [conversation.generate(history, max_new_tokens=8).token_ids for history in histories]

    both(alone)
    both(turns)


def test_a_scheduler_whose_requests_end_at_different_times_is_the_cpus(both: Both) -> None:
    def served(lm: TextGenerator) -> dict[int, tuple[int, ...]]:
        with lm.scheduler(slots=3, max_length=CONTEXT) as scheduler:
            for index, prompt in enumerate(PROMPTS):
                scheduler.submit(prompt, max_new_tokens=3 + 5 * (index % 3), eos_token_id=[])
            found: dict[int, tuple[int, ...]] = {}
            while scheduler.busy:
                found |= {event.request: event.result.token_ids for event in scheduler.step() if event.result}
            return found

    both(served)


def test_a_cache_that_the_gpu_has_no_room_for_is_refused_by_its_name(tmp_path: Path, gpu: FakeGpu) -> None:
    lm = text_generator(fakes.language_model(tmp_path / "lm"), device="cuda")
    gpu.memory = GpuMemory(fake_gpu.NAME, 1_000_000)
    trims = gpu.trims
    with pytest.raises(PromptError) as error:
        lm.generate([[5, 6]] * 64, max_new_tokens=300, batch_size=64)
    assert str(error.value) == (
        "the KV cache for 64 prompt(s) of 301 tokens needs 10 MB, and 1 MB of memory on Fake GPU are free; generate "
        "fewer tokens, or fewer prompts at once"
    )
    assert gpu.trims == trims + 1  # what was freed is given back before anything is refused
    assert lm.generate([5, 6], max_new_tokens=2).token_ids
