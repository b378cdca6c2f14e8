"""The race of attentions: its cases, its page, and a run of the tiny shape."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from intaglio.artifact import Manifest
from intaglio.benchmarks import hybrid
from intaglio.benchmarks.harness.records import Key, Records
from intaglio.benchmarks.harness.sections.hybrid import _all_but_attention
from intaglio.benchmarks.pages import hybrid_page
from intaglio.runtime.kernels import replaceable
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator

TINY = "exaone4-tiny-hybrid"


def test_neighbours_in_a_round_differ_in_the_attention_alone() -> None:
    found = hybrid.measurements([512, 8192], steps=9)
    assert [(one.variant.name, one.case) for one in found[:3]] == [
        ("onnxruntime", "512"),
        ("intaglio", "512"),
        ("intaglio", "512 int8"),
    ]
    assert len(found) == 6
    theirs, ours, int8 = (one.settings for one in found[:3])
    assert theirs | {"attention": "intaglio"} == ours
    assert ours | {"kv_cache": "int8"} == int8


def test_the_page_has_medians_and_ratios_within_rounds(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.jsonl")
    for number, pace in enumerate((1.0, 3.0, 2.0)):
        _record(records, "onnxruntime", "512", number, 8.0 * pace)
        _record(records, "intaglio", "512", number, 4.0 * pace)
        _record(records, "intaglio", "512 int8", number, 2.0 * pace)
    _record(records, "intaglio", "1024", 0, 10.0)
    text = hybrid_page.body(records, "a shape", 2)
    assert "- a shape\n" in text
    assert "| 512 | onnxruntime | float32 | 3 | 256 | 62.5 | 41.7 to 125.0 | 16.0 | 9.0 | 10.0 | 200 |" in text
    assert "| 512 | intaglio | int8 | 3 | 256 | 250.0 | 166.7 to 500.0 | 4.0 | 9.0 | 10.0 | 200 |" in text
    assert "| 512 | float32 | 1.00 | 2.00 |\n| 512 | int8 | 1.00 | 4.00 |" in text
    assert "| 1,024 | intaglio | float32 | 1 |" in text  # measured once, and not raced
    assert text.index("onnxruntime") < text.index("| 512 | intaglio | float32")
    hybrid_page.write(tmp_path, text, records)
    page = (tmp_path / "hybrid.md").read_text(encoding="utf-8")
    assert "![Every step after the longest text](hybrid-steps.svg)" in page
    assert "Every step after 1,024 tokens" in (tmp_path / "hybrid-steps.svg").read_text(encoding="utf-8")


def test_a_run_of_the_tiny_shape(tmp_path: Path) -> None:
    arguments = ["--scratch", str(tmp_path), "--shape", TINY, "--contexts", "300", "--steps", "4", "--rounds", "1"]
    arguments += ["--growth", "700", "--threads", "1", "--report", str(tmp_path / "report")]
    result = CliRunner().invoke(hybrid.main, arguments)
    assert result.exit_code == 0, result.output
    rows = [line.split(" | ")[:3] for line in result.output.splitlines() if line.startswith(("| 300", "| 695"))]
    assert rows[:3] == [
        ["| 300", "onnxruntime", "float32"],
        ["| 300", "intaglio", "float32"],
        ["| 300", "intaglio", "int8"],
    ]
    assert rows[3:5] == [["| 695", "intaglio", "float32"], ["| 695", "intaglio", "int8"]]
    assert "exaone4-tiny-hybrid: 4 layers, hidden 128, 2 key heads of 32, windows of 256 tokens" in result.output
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "hybrid.md",
        hybrid_page.GROWTH,
        hybrid_page.STEPS,
    }
    before = Records(tmp_path / "hybrid" / TINY / "records.jsonl").all
    assert CliRunner().invoke(hybrid.main, arguments).exit_code == 0
    assert Records(tmp_path / "hybrid" / TINY / "records.jsonl").all == before  # what is recorded is not run again


@pytest.mark.parametrize("contexts", ["512,many", "0"])
def test_lengths_that_are_no_numbers_of_tokens(tmp_path: Path, contexts: str) -> None:
    result = CliRunner().invoke(hybrid.main, ["--scratch", str(tmp_path), "--contexts", contexts])
    assert result.exit_code == 2
    assert f"'--contexts': {contexts.split(',')[-1]!r} is not a number of tokens" in result.output


def test_multiplications_stay_on_intaglios_kernels(tmp_path: Path) -> None:
    folder = fakes.language_model(tmp_path / "lm")
    manifest: Manifest = text_generator(folder).manifest
    assert replaceable(manifest) == ("GroupQueryAttention",)
    assert _all_but_attention(manifest) == ()


def _record(records: Records, attention: str, case: str, number: int, median: float) -> None:
    tokens = int(case.split(" ")[0])
    figures: dict[str, Any] = {"context": tokens, "prefill": tokens / 256, "median": median, "decode": 1e3 / median}
    figures |= {"p99": 9.0, "slowest": 10.0, "peak": 300.0, "loaded": 100.0, "steps": [median, median]}
    records.add(Key("hybrid", attention, case, number), figures)
