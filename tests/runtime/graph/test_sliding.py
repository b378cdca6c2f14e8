"""Sliding layers that keep only their window: the changed graph, its memory, and the same tokens."""

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from intaglio.artifact import ModelFacts
from intaglio.errors import ArtifactError
from intaglio.exporter import export
from intaglio.runtime import TextGenerator
from intaglio.runtime.decoding.cache import InPlaceCache
from intaglio.runtime.engine.opening import open_session
from intaglio.runtime.engine.sizes import cache_bytes
from intaglio.runtime.graph.graph import changed_graph
from intaglio.runtime.graph.sliding import first_kept, same_until, window_capacity, with_window_caches
from intaglio.tests import tiny
from intaglio.tests.files.artifact_files import data_of, graph_of
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("windowed")


@pytest.fixture(scope="module")
def hybrid(place: Path) -> Path:
    """EXAONE 4.0 with three sliding layers of four, window 6."""
    return fresh_hybrid(place / "hybrid")


def fresh_hybrid(out: Path, **options: str) -> Path:
    config = tiny.config("exaone4", max_position_embeddings=512)
    source = tiny.write(out.with_name(f"{out.name}-source"), config, tokenizer=True)
    export(source, out, **options)  # type: ignore[arg-type]
    return out


def buffer(capacity: int, window: int, lengths: Iterator[int]) -> Iterator[tuple[int, int]]:
    """Simulate GroupQueryAttention token by token; a full buffer keeps its window."""
    first = 0
    for total in lengths:
        if total - first > capacity:
            first = total - window  # room for the new one: the last window is moved to the beginning
        yield total, first


@pytest.mark.parametrize("window", [1, 6, 64, 4096])
def test_a_buffer_keeps_its_window(window: int) -> None:
    capacity = window_capacity(window)
    assert capacity == window + max(64, window // 16) - 1
    assert (capacity - window + 1) % 64 == 0
    for total, first in buffer(capacity, window, iter(range(1, 5 * capacity))):
        assert first_kept(total, window) == first, total
        last = same_until(total, window)
        assert first_kept(last, window) == first != first_kept(last + 1, window)


def test_only_the_sliding_layers_of_the_graph_are_changed(hybrid: Path) -> None:
    graph, weights = changed_graph(graph_of(hybrid), data_of(hybrid), [with_window_caches])
    changed, plain = onnx.load_from_string(graph), onnx.load(graph_of(hybrid), load_external_data=False)
    assert weights == hybrid / "onnx"
    slides = []
    for node in changed.graph.node:
        if node.op_type == "GroupQueryAttention":
            values = {attribute.name: attribute.i for attribute in node.attribute}
            slides.append(values.get("sliding_window_cache", 0))
            if slides[-1]:
                assert values["local_window_size"] == 6
                del node.attribute[-1]
    assert slides == [1, 1, 1, 0]
    assert changed == plain


def test_the_weights_are_found_through_links_as_in_the_hubs_cache(hybrid: Path, tmp_path: Path) -> None:
    snapshot = fakes.hub_snapshot(hybrid, tmp_path)
    lm = text_generator(snapshot)
    assert lm.session.windowed
    assert lm.generate([5, 6], max_new_tokens=5) == text_generator(hybrid).generate([5, 6], max_new_tokens=5)


def test_a_file_that_is_not_a_graph(tmp_path: Path) -> None:
    folder = fakes.language_model(tmp_path / "lm", layer_windows=(6, None))
    graph_of(folder).write_bytes(b"\x07" * graph_of(folder).stat().st_size)
    with pytest.raises(
        ArtifactError, match=r"model\.onnx cannot be read \(not a protobuf.*check it with `intaglio verify`"
    ):
        text_generator(folder)


@pytest.mark.parametrize("dropped", [1, 2, 4, 64])
def test_windows_change_no_token_far_beyond_them(hybrid: Path, dropped: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intaglio.runtime.graph.sliding.BLOCK", dropped)
    monkeypatch.setattr("intaglio.runtime.decoding.prefill.PREFILL_CHUNK", 50)
    lm = text_generator(hybrid, threads=1)
    whole = TextGenerator(open_session(hybrid, lm.manifest, threads=1), lm.tokenizer, lm.defaults)
    assert lm.session.windowed
    assert not whole.session.windowed
    prompts = [[5, 6, 7], [9, 8] * 100, [20, 30, 40] * 23, [11]]
    wanted = whole.generate(prompts, max_new_tokens=200, eos_token_id=[])
    assert lm.generate(prompts, max_new_tokens=200, eos_token_id=[]) == wanted
    assert [lm.generate(prompt, max_new_tokens=200, eos_token_id=[]) for prompt in prompts] == wanted


def test_sliding_buffers_stay_as_large_as_their_window(hybrid: Path) -> None:
    lm = text_generator(hybrid)
    cache = InPlaceCache(lm.session, 2, 10, 500)
    assert [buffer.capacity for buffer in cache._buffers] == [69] * 6 + [500] * 2
    assert cache.bytes(500) == 2 * (3 * 69 + 500) * 2 * 2 * 16 * 4
    assert cache.bytes(20) == 2 * (4 * 20) * 2 * 2 * 16 * 4


@pytest.mark.slow
def test_half_precision_slides_as_well(place: Path) -> None:
    folder = fresh_hybrid(place / "half", precision="fp16")
    lm = text_generator(folder, threads=1)
    whole = TextGenerator(open_session(folder, lm.manifest, threads=1), lm.tokenizer, lm.defaults)
    assert lm.session.windowed
    prompt = [9, 8, 7] * 50
    assert lm.generate(prompt, max_new_tokens=150) == whole.generate(prompt, max_new_tokens=150)


def test_the_cache_of_the_32b_hybrid_is_little_more_than_a_quarter() -> None:
    """64 layers, LLLG, window 4,096, 8 key-value heads of 128, at its whole context."""
    windows = tuple(None if layer % 4 == 3 else 4096 for layer in range(64))
    facts = ModelFacts(102400, 5120, 64, 40, 8, 128, windows, 131_072, "float32")
    naive, kept = (cache_bytes(facts, 131_072, windowed=windowed) for windowed in (False, True))
    assert naive == 131_072 * 64 * 2 * 8 * 128 * 4
    assert kept / naive == pytest.approx(0.2749, abs=1e-4)


def test_other_devices_and_targets_keep_everything(tmp_path: Path) -> None:
    folder = fakes.language_model(tmp_path / "lm", target="standard")
    lm = text_generator(folder)
    assert not lm.session.windowed
    facts = lm.manifest.model
    assert cache_bytes(facts, 100, windowed=True) == cache_bytes(facts, 100, windowed=False) == 100 * 512


def test_a_buffer_that_does_not_drift_goes_back_only_until_it_is_full() -> None:
    """On CUDA a full buffer of C positions has the last C after each token, whatever its window."""
    window = 6
    capacity = window_capacity(window)
    for total in range(1, 3 * capacity):
        kept = max(0, total - capacity)
        last = max(length for length in range(total, 4 * capacity) if max(0, length - capacity) == kept)
        assert same_until(total, window, drifts=False) == last
