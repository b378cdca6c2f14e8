"""Prompts on disk: a later scheduler goes on from them, and whatever lies in their folder changes no result."""

import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from intaglio import export
from intaglio.errors import IntaglioWarning, OutputError, UsageError
from intaglio.runtime import Event, Generation, TextGenerator, load
from intaglio.runtime.generation import prompt_files
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator
from intaglio.tests.tiny import config, write
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

KINDS: dict[str, dict[str, Any]] = {
    "shared": {},
    "windowed": {"layer_windows": (6, None)},
    "standard": {"target": "standard"},
}
OPTIONS: dict[str, Any] = {"max_new_tokens": 4, "eos_token_id": [], "temperature": 0.0, "logprobs": 1}


@pytest.fixture(scope="module", params=list(KINDS))
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    return text_generator(fakes.language_model(tmp_path_factory.mktemp("lm") / "lm", **KINDS[request.param]))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> TextGenerator:
    return text_generator(fakes.language_model(tmp_path_factory.mktemp("lm") / "lm"))


def tokens(seed: int, count: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, 288, count)]


def served(lm: TextGenerator, prompts: Sequence[list[int]], folder: Path | None) -> list[tuple[Generation, int]]:
    """Return the result of each prompt, one after the other in one scheduler, and how many tokens were not read."""
    found = []
    longest = min(450, lm.manifest.model.context_length)
    with lm.scheduler(slots=2, max_length=longest, kept_prompts=2, prompt_cache=folder) as scheduler:
        for prompt in prompts:
            scheduler.submit(prompt, **OPTIONS)
            events: list[Event] = []
            while scheduler.busy:
                events += scheduler.step()
            assert events[-1].result is not None
            found.append((events[-1].result, events[-1].cached_tokens))
    return found


def test_a_prompt_is_there_after_a_restart(lm: TextGenerator, tmp_path: Path) -> None:
    system = tokens(1, 150)
    first, second = [system + tokens(seed, 80) for seed in (2, 3)]
    expected = [lm.generate(prompt, **OPTIONS).token_ids for prompt in (first, second)]
    ((found, before),) = served(lm, [first], tmp_path / "folder")
    (again, cached), (other, shared) = served(lm, [first, second], tmp_path / "folder")
    assert [found.token_ids, again.token_ids, other.token_ids] == [expected[0], *expected]
    assert before == 0
    if all(window is None for window in lm.manifest.model.layer_windows):
        assert (cached, shared) == (230 - 8, 150)
    files = list((tmp_path / "folder").iterdir())
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700


@pytest.mark.parametrize("kv_cache", ["exact", "int8"])
def test_bits_are_those_of_reading_with_quantized_weights(quantized: Path, tmp_path: Path, kv_cache: Any) -> None:
    system = [int(token) for token in np.random.default_rng(0).integers(3, 4000, 200)]
    prompts = [[*system, *range(10 + seed, 55 + seed)] for seed in range(2)]  # a window keeps what they share
    with load(quantized, task="text-generation", threads=1, kv_cache=kv_cache) as model:
        expected = [model.generate(prompt, speculate=False, **OPTIONS) for prompt in prompts]
        assert [result for result, _ in served(model, prompts[:1], tmp_path)] == expected[:1]
        assert served(model, prompts[1:], tmp_path) == [(expected[1], 200)]


def test_another_model_does_not_take_it(quantized: Path, tmp_path: Path, plain: TextGenerator) -> None:
    prompt = tokens(4, 200)
    served(plain, [prompt], tmp_path)
    with load(quantized, task="text-generation", threads=1) as model:
        assert [cached for _, cached in served(model, [prompt], tmp_path)] == [0]
        with load(quantized, task="text-generation", threads=1, kv_cache="int8") as other:
            assert [cached for _, cached in served(other, [prompt], tmp_path)] == [0]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_longer_prompt_takes_the_place_of_its_beginning(plain: TextGenerator, tmp_path: Path) -> None:
    prompt = tokens(5, 300)
    served(plain, [prompt[:200]], tmp_path)
    served(plain, [prompt], tmp_path)
    served(plain, [prompt[:200]], tmp_path)
    (file,) = tmp_path.iterdir()
    assert load_file(file)["tokens"].tolist() == prompt


def test_the_least_recently_used_are_removed(
    plain: TextGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [tokens(seed, 200) for seed in (6, 7, 8)]
    served(plain, prompts[:1], tmp_path)
    (file,) = tmp_path.iterdir()
    monkeypatch.setattr(prompt_files, "MOST_BYTES", int(2.5 * file.stat().st_size))
    served(plain, prompts, tmp_path)
    kept = {tuple(load_file(path)["tokens"].tolist()) for path in tmp_path.iterdir()}
    assert kept == {tuple(prompt) for prompt in prompts[1:]}


def test_damaged_and_foreign_files_are_not_taken(plain: TextGenerator, tmp_path: Path) -> None:
    prompt = tokens(9, 200)
    expected = [(plain.generate(prompt, **OPTIONS), 0)]
    served(plain, [prompt], tmp_path)
    (file,) = tmp_path.iterdir()
    good = file.read_bytes()
    with safe_open(file, framework="np") as opened:
        metadata = opened.metadata()
    values = load_file(file)
    layers = len(values) - 1
    other_shape = {**values, "0": values["0"][:, :-1]}
    other_type = {**values, "0": values["0"].astype(np.float16)}
    fewer = {name: value for name, value in values.items() if name != str(layers - 1)}
    outside = {**values, "tokens": values["tokens"] + 10**6}
    negative = {**values, "tokens": -values["tokens"]}
    flat = {**values, "tokens": values["tokens"][None]}
    changed = bytearray(good)
    changed[len(good) // 2] ^= 1
    for content in (b"", b"no file of this kind", good[:100], good[:-1], bytes(changed)):
        file.write_bytes(content)
        assert served(plain, [prompt], tmp_path) == expected
    for tensors in (other_shape, other_type, fewer, outside, negative, flat, {"0": values["0"]}):
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, file, metadata)
        assert served(plain, [prompt], tmp_path) == expected
    file.unlink()
    file.mkdir()
    with pytest.warns(IntaglioWarning, match="a prompt could not be written"):
        assert served(plain, [prompt], tmp_path) == expected
    file.rmdir()
    file.symlink_to("/dev/zero")
    assert served(plain, [prompt], tmp_path) == expected
    assert [cached for _, cached in served(plain, [prompt], tmp_path)] == [192]


def test_a_file_that_is_gone_is_no_matter(plain: TextGenerator, tmp_path: Path) -> None:
    prompt = tokens(10, 200)
    served(plain, [prompt], tmp_path)
    with plain.scheduler(slots=1, max_length=300, kept_prompts=1, prompt_cache=tmp_path) as scheduler:
        for file in tmp_path.iterdir():
            file.unlink()
        scheduler.submit(prompt, **OPTIONS)
        events: list[Event] = []
        while scheduler.busy:
            events += scheduler.step()
    assert (events[-1].result, events[-1].cached_tokens) == (plain.generate(prompt, **OPTIONS), 0)
    assert len(list(tmp_path.iterdir())) == 1


def test_slots_that_are_written_are_not_used_meanwhile(
    plain: TextGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never end writing: the slot stays as it is, and prompts after it are not kept."""
    monkeypatch.setattr(prompt_files.PromptFiles, "save", lambda *_: None)
    prompts = [tokens(seed, 200) for seed in (11, 12, 13, 11, 12, 13)]
    assert [cached for _, cached in served(plain, prompts, tmp_path)] == [0, 0, 0, 192, 192, 0]


def test_a_folder_that_cannot_be_used_is_refused(plain: TextGenerator, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="give another folder as prompt_cache"):
        plain.scheduler(kept_prompts=1, prompt_cache=tmp_path / "file" / "folder")
    with pytest.raises(UsageError, match="prompt_cache is for kept prompts; give kept_prompts"):
        plain.scheduler(prompt_cache=tmp_path)


def test_prompts_share_nothing_where_numbers_depend_on_the_length(tmp_path: Path) -> None:
    """Dynamic RoPE turns every position by frequencies that depend on the whole length."""
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    export(write(tmp_path / "checkpoint", config("qwen2", rope=rope, max_position_embeddings=64)), tmp_path / "lm")
    system = tokens(14, 150)
    prompts = [system + tokens(seed, 40) for seed in (15, 16)]
    with load(tmp_path / "lm", task="text-generation", threads=1) as model:
        assert model.manifest.model.length_dependent_rope
        expected = [(model.generate(prompt, **OPTIONS), 0) for prompt in prompts]
        assert served(model, prompts, tmp_path / "folder") == expected
    shutil.rmtree(tmp_path / "folder")
