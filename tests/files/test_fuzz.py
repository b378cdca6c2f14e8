"""A short slice of the file fuzzer, and that it notices what it looks for."""

import itertools
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from intaglio.errors import UsageError
from intaglio.tests.files import drive, fuzz
from intaglio.tests.files.artifact_files import contents
from intaglio.tests.files.gguf_mutations import header_places
from intaglio.tests.files.mutations import mutate
from intaglio.tests.files.tensor_mutations import WAYS, mutate_tensors, read_tensors
from intaglio.tests.inputs.formats import cases
from safetensors.torch import save_file

CASES = 40


def test_mutated_files_are_used_or_refused() -> None:
    found = fuzz.fuzz(range(CASES), seed=15, exported=False)
    assert found["defects"] == []
    assert sum(found["totals"].values()) == CASES
    assert min(found["totals"][outcome] for outcome in ("ok", "refused")) > CASES // 8


@pytest.mark.slow
def test_mutated_files_of_exports_are_used_or_refused() -> None:
    assert fuzz.fuzz(range(1000), seed=16, exported=True)["defects"] == []


@pytest.mark.parametrize("format", ["GPTQ", "GGUF"])
def test_mutated_checkpoints_of_other_formats_are_used_or_refused(format: str) -> None:
    found = fuzz.fuzz(range(12), seed=17, inputs=format)
    assert found["defects"] == []
    assert sum(found["totals"].values()) == 12


@pytest.mark.slow
def test_mutated_checkpoints_of_every_format_are_used_or_refused() -> None:
    assert fuzz.fuzz(range(400), seed=18, inputs="")["defects"] == []


def test_the_fields_of_a_gguf_header_are_found(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    content = make_gguf(tmp_path).read_bytes()
    places = header_places(content)
    assert content[:4] == b"GGUF"
    assert [one.what for one in places[:4]] == ["magic", "version", "number of tensors", "number of metadata"]
    assert all(one.at + one.size == other.at for one, other in itertools.pairwise(places))
    number = int.from_bytes(content[8:16], "little")
    assert sum(one.what == "offset" for one in places) == number


def test_a_mutated_tensor_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    what = set()
    for seed in range(60):
        save_file({"w.qweight": torch.ones(4, 4, dtype=torch.int32), "w.scales": torch.ones(2, 4)}, path)
        way = mutate_tensors(path, random.Random(seed)).rpartition(" ")[2]
        what.add(way)
        stored = read_tensors(path.read_bytes())
        size = int.from_bytes(path.read_bytes()[:8], "little")
        if way != "twice":  # JSON keeps one of two equal keys
            assert sum(len(one.data) for one in stored) == path.stat().st_size - 8 - size
    assert what == set(WAYS)


def make_gguf(folder: Path) -> Path:
    """Write the first GGUF file of the cases."""
    return next(case for case in cases() if case.format == "GGUF").make(folder, "qwen2")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "base"
    (folder / "classifier").mkdir(parents=True)
    (folder / "classifier" / "intaglio.json").write_text('{"files": {}}')
    (folder / "classifier" / "a.json").write_text('{"b": [1, {"c": 2}]}')
    return folder


def test_a_case_is_the_same_each_time(base: Path, tmp_path: Path) -> None:
    def mutated(seed: int) -> tuple[str, dict[str, bytes]]:
        folder = tmp_path / "case"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base / "classifier", folder)
        what = mutate(folder, random.Random(seed))
        return what, contents(folder)

    results = [mutated(seed) for seed in range(40)]
    assert results == [mutated(seed) for seed in range(40)]
    assert len({what for what, _ in results}) > 20


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (UsageError("no"), "refused"),
        (TypeError("a bug"), "traceback"),
        (BaseException("a panic"), "traceback"),
    ],
)
def test_outcomes_of_a_case(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException | None, outcome: str
) -> None:
    def act(_: Path) -> None:
        if error is not None:
            raise error

    monkeypatch.setitem(drive.VERBS, "classifier", {"act": (1, act)})
    assert drive.run_case(base, tmp_path / "case", 0, 0)["outcome"] == outcome


@pytest.mark.parametrize(
    ("code", "outcome", "message"),
    [
        ("import os; os.abort()", "crash", "exit code -6"),
        ("import time; time.sleep(60)", "hang", "no answer after 1 s"),
    ],
)
def test_a_crash_and_a_hang_are_outcomes_and_a_new_process_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, outcome: str, message: str
) -> None:
    def start(_: fuzz.Worker) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", f"input(); {code}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    monkeypatch.setattr(fuzz.Worker, "_start", start)
    monkeypatch.setattr(fuzz, "TIMEOUT", 1.0)
    worker = fuzz.Worker(tmp_path, tmp_path, 0)
    for _ in range(2):
        assert worker.run(0) == {"verb": "?", "what": "?", "outcome": outcome, "message": message}
    worker.close()
