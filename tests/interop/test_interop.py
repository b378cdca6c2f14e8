"""The matrix of docs/runtimes.md: its comparison and its table, and the quick cases in the runtimes that are there."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from intaglio import QuantizeOptions, load, quantize
from intaglio.contract import MASK_CHECK
from intaglio.scripts.interop import environments, matrix, table
from intaglio.scripts.interop.cases import Case, cases
from intaglio.scripts.interop.checkpoints import CHECKPOINTS, FAMILIES
from intaglio.scripts.interop.environments import RUNTIMES, UnavailableError
from intaglio.scripts.interop.outcome import Outcome, judge
from intaglio.scripts.interop.record import Record, read_record

TEXT = Case("qwen2", "text-generation", "ort", "int4")
CLASSIFY = Case("qwen2", "text-classification", "ort", "fp32")


def outcome(found: Mapping[str, Any], outputs: list[Any], batch: list[Any] | None = None, case: Case = TEXT) -> Outcome:
    return judge(case.task, case.precision, {"batch": None, **found}, outputs, batch, [9])


def test_another_token_differs_and_what_follows_the_end_does_not_count() -> None:
    assert outcome({"outputs": [[1, 2, 9]]}, [[1, 2, 9]]) == Outcome("same")
    assert outcome({"outputs": [[1, 2]]}, [[1, 2, 9]]) == Outcome("same")
    assert outcome({"outputs": [[1, 9, 0]]}, [[1, 9]]) == Outcome("differs", "text 1: goes on after the end token")
    assert outcome({"outputs": [[1]], "batch": [[1, 9, 0]]}, [[1]], [[1, 9]]) == Outcome("same")
    assert outcome({"outputs": [[1, 3]]}, [[1, 2]]) == Outcome("differs", "text 1: token 2 of 2 is 3, intaglio's 2")
    assert outcome({"outputs": [[1]]}, [[1, 2]]).reason == "text 1: token 2 of 2 is the end, intaglio's 2"
    rows = {"outputs": [[1]], "batch": [[1], [2]]}
    assert outcome(rows, [[1]], [[1], [3]]) == Outcome("differs", "row 2 of a batch: token 1 of 1 is 2, intaglio's 3")
    refused = {"outputs": [[1]], "batch_refused": f"Node {MASK_CHECK} failed"}
    assert outcome(refused, [[1]], [[1], [3]]) == Outcome(
        "same",
        "batches of different lengths are refused: the runtime pads on the left, and target ort takes padding on the "
        "right",
    )
    assert outcome({"refused": "no such operator"}, [[1]]) == Outcome("refused", "no such operator")
    with pytest.raises(ValueError, match="zip"):
        outcome({"outputs": [[1]]}, [[1], [2]])


def test_labels_are_equal_and_scores_near() -> None:
    good = {"label": "good", "score": 0.75}
    assert outcome({"outputs": [good | {"score": 0.7505}]}, [good], case=CLASSIFY).kind == "same"
    assert outcome({"outputs": [good | {"score": 0.76}]}, [good], case=CLASSIFY).kind == "differs"
    assert outcome({"outputs": [good | {"label": "bad"}]}, [good], case=CLASSIFY).kind == "differs"


def test_precisions_with_the_same_outcomes_share_a_row() -> None:
    more = Case("qwen2", "text-generation", "ort", "fp32")
    refused = Outcome("refused", "a | b")
    found = Record(versions={"genai": "genai 1"})
    found.add(more, "genai", Outcome("same"))
    found.add(TEXT, "genai", Outcome("same"))
    found.add(CLASSIFY, "genai", refused)
    assert cells(table.table(found))["qwen2", "text-generation", "ort", "int4", "onnxruntime-genai"] == "same tokens"
    assert table.table(found).splitlines() == [
        "| model | task | target | precision | onnxruntime-genai |",
        "| --- | --- | --- | --- | --- |",
        "| qwen2 | text-generation | ort | fp32, int4 | same tokens |",
        "| qwen2 | text-classification | ort | fp32 | refused (1) |",
        "",
        "1. a \\| b",
        "",
        "Ran with genai 1.",
    ]


def test_a_record_is_read_as_it_was_kept(tmp_path: Path) -> None:
    kept = Record(versions={"genai": "genai 1"})
    kept.add(TEXT, "genai", Outcome("refused", "why"))
    kept.save(tmp_path / "a" / "record.json")
    assert read_record(tmp_path / "a" / "record.json") == kept
    assert read_record(tmp_path / "none.json") == Record()
    matrix.run([TEXT], ["genai"], kept, lambda *_: pytest.fail("it ran again"))


def unequal(names: list[str], chosen: list[Case]) -> dict[str, Outcome]:
    """Run cases in runtimes; return what is not the same. Skip where none of the runtimes can be installed."""
    reasons = {}
    for name in names:
        try:
            environments.command(RUNTIMES[name])
        except UnavailableError as error:
            reasons[name] = str(error)
    there = [name for name in names if name not in reasons]
    if not there:
        pytest.skip("; ".join(reasons.values()))
    found = Record()
    matrix.run(chosen, there, found, lambda *_: None)
    return {
        f"{case.name} in {name}": outcome
        for case, row in found.outcomes.items()
        for name, outcome in row.items()
        if outcome != Outcome("same")
    }


def test_tokens_of_a_quick_slice_are_the_same_in_other_runtimes() -> None:
    assert unequal(["genai"], [case for case in cases(quick=True) if case.task == "text-generation"]) == {}
    assert unequal(["onnxruntime_node"], [case for case in cases(quick=True) if case.family == "qwen2"]) == {}


def test_onnxruntime_alone_gives_the_same_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs in this Python, which has what it needs."""
    monkeypatch.setattr(environments, "python_environment", lambda name: Path(sys.executable))
    assert unequal(["onnxruntime"], [CLASSIFY, Case("exaone4", "question-answering", "standard", "fp32")]) == {}


def test_the_lines_for_genai_run(tmp_path: Path) -> None:
    (code,) = re.findall(
        r"^```python\n(import onnxruntime_genai.*?)^```$", table.PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    try:
        python = environments.python_environment("genai")
    except UnavailableError as error:
        pytest.skip(str(error))
    options = QuantizeOptions(method="rtn", block_size=32)
    quantize(CHECKPOINTS / "tiny-qwen2", tmp_path / "out-int4", options=options)
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    with load(tmp_path / "out-int4", task="text-generation", kernels="onnxruntime", threads=1) as lm:
        expected = lm.chat([{"role": "user", "content": "Where is the city?"}], max_new_tokens=64, temperature=0.0)
    assert done.stdout.rstrip("\n") == expected.text


def cells(text: str) -> dict[tuple[str, ...], str]:
    """Return the cells of a table by model, task, target, precision and runtime, without the numbers of their notes."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    return {
        (model, task, target, precision, runtime): cell.split(" (")[0]
        for model, task, target, precisions, *row in rows[1:]
        for precision in precisions.split(", ")
        for runtime, cell in zip(rows[0][4:], row, strict=True)
    }


@pytest.mark.slow
def test_the_page_shows_what_every_runtime_does() -> None:
    for name, runtime in RUNTIMES.items():
        try:
            environments.command(runtime)
        except UnavailableError as error:
            pytest.skip(f"{name}: {error}")
    record = Record()
    matrix.run(cases(quick=False), list(RUNTIMES), record, lambda *_: None)
    found = cells(table.table(record))
    shown = cells(table.PAGE.read_text(encoding="utf-8").split(table.BEGIN)[1].split(table.END)[0])
    tiny = {key: cell for key, cell in shown.items() if key[0] in FAMILIES}
    assert {key: found[key] for key in tiny} == tiny
    assert {key for key in found if key[1] == "text-generation"} <= tiny.keys()
