"""The cases of the race of attentions, and its table."""

from pathlib import Path
from typing import Any

from intaglio.artifact import Manifest
from intaglio.benchmarks import hybrid
from intaglio.benchmarks.harness.sections.hybrid import _all_but_attention
from intaglio.runtime.kernels import replaceable
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator


def test_each_round_has_both_attentions_and_the_longest_text_comes_once() -> None:
    cases = list(hybrid._cases([512, 8192], 130_471, 2))
    assert len(cases) == 2 * 2 * 3 + 2
    assert cases[0] == (0, ("onnxruntime", "float32", 512))
    assert [case for _, case in cases[-2:]] == [("intaglio", "float32", 130_471), ("intaglio", "int8", 130_471)]
    assert list(hybrid._cases([512], 0, 1)) == cases[:3]


def test_the_table_has_the_fastest_round() -> None:
    def record(number: int, median: float, prefill: float) -> dict[str, Any]:
        figures = {"median": median, "decode": 1e3 / median, "p99": 9.0, "slowest": 10.0, "prefill": prefill}
        case = {"attention": "intaglio", "cache": "int8", "tokens": 512, "context": 512, "round": number}
        return {**case, **figures, "rss": 300.0, "loaded": 100.0}

    header, _, row = hybrid.table([record(0, 4.0, 2.0), record(1, 2.0, 4.0)])
    assert len(header) == len(row)
    assert row == ("intaglio", "int8", "512", "256", "500.00", "2.00", "9.00", "10.00", "200")


def test_multiplications_stay_on_intaglios_kernels(tmp_path: Path) -> None:
    folder = fakes.language_model(tmp_path / "lm")
    manifest: Manifest = text_generator(folder).manifest
    assert replaceable(manifest) == ("GroupQueryAttention",)
    assert _all_but_attention(manifest) == ()
