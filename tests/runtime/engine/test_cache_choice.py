"""``kv_cache="auto"``: int8 for long texts and where memory is short, wherever an int8 cache is possible."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio.artifact import FileEntry, read_manifest
from intaglio.errors import UsageError
from intaglio.runtime import kernels, load
from intaglio.runtime.engine.cache_choice import FASTER_FROM, choose_cache
from intaglio.runtime.engine.session import Session
from intaglio.runtime.engine.sizes import RESERVE
from intaglio.runtime.kernels.edits.int8_cache import OPERATOR
from intaglio.tests.runtime import fakes

CONTEXT = 4 * FASTER_FROM
ROW = 2 * 2 * 2 * 16 * 4
"""Bytes of one position as float32: keys and values of 2 layers with 2 heads of 16."""
needs_kernel = pytest.mark.skipif(kernels.instructions() is None, reason="no compiled kernels for this processor")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes.language_model(tmp_path_factory.mktemp("lm") / "lm", context_length=CONTEXT)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that sets the free memory which the choice sees."""

    def set_to(count: int | None) -> None:
        monkeypatch.setattr("intaglio.runtime.engine.cache_choice.available_memory", lambda: count)

    set_to(1 << 40)
    return set_to


def session_of(folder: Path, **options: Any) -> Session:
    with load(folder, threads=1, **options) as model:
        found: Session = model.session
    return found


@needs_kernel
@pytest.mark.parametrize(
    ("max_length", "chosen"),
    [(FASTER_FROM - 1, "float32"), (FASTER_FROM, "int8"), (None, "int8"), (10 * CONTEXT, "int8")],
)
def test_long_texts_have_an_int8_cache(folder: Path, free: Any, max_length: int | None, chosen: str) -> None:
    session = session_of(folder, kv_cache="auto", max_length=max_length)
    assert session.cache_dtype == chosen
    assert (OPERATOR in session.intaglio_kernels) == (chosen == "int8")
    length = min(max_length or CONTEXT, CONTEXT)
    assert session.kv_cache_reason == (
        f"texts of {length:,} tokens, for which it is faster; it costs 0.0006 nats per token of KL divergence on a "
        "Qwen2 0.5B"
        if chosen == "int8"
        else "1 text of 8,191 tokens fit into memory, and int8 is faster from 8,192 tokens on only"
    )


@needs_kernel
def test_memory_decides_below_that(folder: Path, free: Any) -> None:
    fits = 12 * 1000 * ROW + RESERVE
    wanted: dict[str, Any] = {"kv_cache": "auto", "max_length": 1000, "slots": 12}
    free(fits)
    assert session_of(folder, **wanted).cache_dtype == "float32"
    free(fits - 1)
    session = session_of(folder, **wanted)
    assert session.cache_dtype == "int8"
    assert session.kv_cache_reason == (
        f"12 texts of 1,000 tokens need 0.01 GB as float32 beside the weights, and {(fits - 1) / 1e9:,.2f} GB are "
        "free; it costs 0.0006 nats per token of KL divergence on a Qwen2 0.5B"
    )
    free(None)  # the system has no figure
    assert session_of(folder, **wanted).cache_dtype == "float32"


@needs_kernel
def test_the_weights_take_memory_too(folder: Path, free: Any) -> None:
    manifest = read_manifest(folder)
    manifest = replace(manifest, files={manifest.data: FileEntry("0" * 64, 5_000_000)})
    for spare, int8 in ((5_000_000, False), (4_999_999, True)):
        free(1000 * ROW + RESERVE + spare)
        choice = choose_cache(manifest, "cpu", "auto", max_length=1000, slots=1, windowed=True)
        assert choice.int8 == int8


@needs_kernel
def test_what_is_generated_is_that_of_the_cache_it_chose(folder: Path, free: Any) -> None:
    def tokens(**options: Any) -> tuple[float, ...]:
        with load(folder, task="text-generation", threads=1, **options) as lm:
            return tuple(lm.score([5, 6, 7, 8, 9, 10, 11]).logprobs[1:])

    exact, int8 = tokens(), tokens(kv_cache="int8")
    assert exact != int8
    assert tokens(kv_cache="auto") == int8
    assert tokens(kv_cache="auto", max_length=100) == exact


def test_the_default_is_the_artifacts_type_and_says_nothing(folder: Path) -> None:
    session = session_of(folder)
    assert (session.cache_dtype, session.kv_cache_reason) == ("float32", None)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"kernels": "onnxruntime"}, "the kernels are ONNX Runtime's"),
        ({"target": "standard"}, "the artifact's target is 'standard'"),
        ({"head": True}, "an artifact for text-classification has no KV cache"),
        ({"library": None}, "intaglio's attention cannot run here"),
        ({"declined": True}, "intaglio's attention cannot run here"),
    ],
    ids=["kernels", "target", "head", "library", "declined"],
)
def test_where_int8_is_not_possible_the_type_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], why: str
) -> None:
    if "head" in how:
        folder = fakes.head(tmp_path / "out", "text-classification", np.zeros((fakes.VOCAB, 3)))
    else:
        folder = fakes.language_model(tmp_path / "out", target=how.get("target", "ort"), context_length=CONTEXT)
    if "library" in how:
        monkeypatch.setattr("intaglio.runtime.engine.cache_choice.library", lambda: None)
    if "declined" in how:  # the library is there, and refuses the operator when the session is made
        monkeypatch.setattr(kernels, "library", lambda: None)
        monkeypatch.setattr("intaglio.runtime.engine.opening.warn_without_library", lambda: None)
        monkeypatch.setattr("intaglio.runtime.engine.cache_choice.library", lambda: tmp_path)
    options = {"kernels": how["kernels"]} if "kernels" in how else {}
    session = session_of(folder, kv_cache="auto", **options)
    assert session.manifest.model.cache_dtype == session.cache_dtype == "float32"
    assert session.kv_cache_reason == f"an int8 cache is not possible: {why}"


def test_a_length_without_a_choice_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="max_length is for kv_cache='auto', not for kv_cache='exact'; leave it out"):
        load(folder, max_length=100)
    with pytest.raises(UsageError, match="slots is for kv_cache='auto', not for kv_cache='int8'; leave it out"):
        load(folder, kv_cache="int8", slots=2)
    with pytest.raises(UsageError, match="max_length must be at least 1, not 0"):
        load(folder, kv_cache="auto", max_length=0)
    with pytest.raises(UsageError, match="slots must be at least 1, not -1"):
        load(folder, kv_cache="auto", slots=-1)
