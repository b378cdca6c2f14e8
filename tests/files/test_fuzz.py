"""A short slice of the file fuzzer, and that it notices what it looks for."""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from intaglio.errors import UsageError
from intaglio.tests.files import drive, fuzz
from intaglio.tests.files.artifact_files import contents
from intaglio.tests.files.mutations import mutate

CASES = 40


def test_mutated_files_are_used_or_refused() -> None:
    found = fuzz.fuzz(range(CASES), seed=15, exported=False)
    assert found["defects"] == []
    assert sum(found["totals"].values()) == CASES
    assert min(found["totals"][outcome] for outcome in ("ok", "refused")) > CASES // 8


@pytest.mark.slow
def test_mutated_files_of_exports_are_used_or_refused() -> None:
    assert fuzz.fuzz(range(1000), seed=16, exported=True)["defects"] == []


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
