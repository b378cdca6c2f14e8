"""The generated part of runtime.md from records, and its plots."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from intaglio.benchmarks.artifacts.variants import ALL
from intaglio.benchmarks.harness import passes
from intaglio.benchmarks.harness.node_names import layerless
from intaglio.benchmarks.harness.records import Key, Record, Records
from intaglio.benchmarks.harness.sections.profile import summary
from intaglio.benchmarks.pages import generated, own_tables, runtime_page, tables
from intaglio.benchmarks.pages.tables import VariantFacts, divergence

INT4 = VariantFacts("int4", "intaglio", disk=300_000_000, step=200_000_000, kl=0.031)
OPENVINO = VariantFacts("openvino-int4", "OpenVINO", disk=340_000_000, step=320_000_000, kl=0.00123)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """Two rounds: int4 decodes at 50 and 60, openvino-int4 at 40 and 40, on a machine of 20 GB/s."""
    found = Records(tmp_path / "records.jsonl")
    for number in range(2):
        found.add(Key("bandwidth", "machine", "", number), {"gbs": 20.0, "best": 21.0})
        for name, decode, first in (("int4", 50.0 + 10 * number, 1.0), ("openvino-int4", 40.0, 2.0)):
            times = {"128": first / 4, "512": first, "2048": 4 * first, "8192": 32 * first}
            figures: Record = {"decode": decode, "first": times}
            memory = {"imports": 60.0, "peak": 500.0, "peak_long": 900.0, "load": 0.5 * first}
            found.add(Key("speed", name, "", number), {**figures, **memory, "version": f"{name} 1"})
    return found


def row(table: str, name: str) -> list[str]:
    """Return the cells of the row that has ``name`` in its first two columns."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return next(cells for cells in rows if name in cells[:2])


def test_speeds_are_medians_and_shares_of_the_memory_bound(records: Records) -> None:
    cells = row(tables.speed(records, [INT4, OPENVINO]), "int4")
    assert cells[2:5] == ["55.0", "50.0 to 60.0", "55 %"]  # 55 tok/s × 200 MB of 20 GB/s
    assert cells[5:8] == ["512", "512", "256"]
    assert cells[8:] == ["250", "1,000", "4,000", "32,000"]
    assert row(tables.speed(records, [INT4, OPENVINO]), "openvino-int4")[4] == "64 %"


def test_ratios_above_one_are_better_for_the_compared_variant(records: Records) -> None:
    cells = row(tables.against(records, [INT4, OPENVINO], "int4"), "openvino-int4")
    assert cells[2:] == ["1.38", "2.00", "2.00", "2.00", "2.00", "2.00", "1.00"]


def test_memory_is_shown_beside_its_limit(records: Records) -> None:
    table = tables.memory(records, [INT4, OPENVINO], kv=6_000_000)
    assert row(table, "int4")[2:] == ["0.50", "500", "60", "900", "546", "300", "200", "0.031"]
    assert row(table, "openvino-int4")[6] == ""


def test_the_kl_of_decode_is_shown_where_it_differs() -> None:
    assert divergence(VariantFacts("a", "b", 1, 1)) == ""
    assert divergence(VariantFacts("a", "b", 1, 1, kl=0.0312, decode_kl=1.09)) == "0.031"
    assert divergence(VariantFacts("a", "b", 1, 1, kl=0.0012, decode_kl=1.25)) == "0.00120 (decode × 1.25)"


def test_batches_are_compared_with_one_sequence(records: Records) -> None:
    records.add(Key("batches", "int4", "", 0), {"version": "v", "1": {"decode": 50.0}, "8": {"decode": 150.0}})
    records.add(Key("batches", "llama-q4-0", "", 0), {"version": "v", "1": {"decode": 40.0}})
    assert row(tables.batches(records), "int4") == ["int4", "50.0", "150.0", "3.00"]
    assert row(tables.batches(records), "llama-q4-0") == ["llama-q4-0", "40.0", "", ""]


def test_labels_are_compared_with_those_of_transformers(records: Records) -> None:
    name = "transformers-fp32-sst2"
    records.add(Key("classification", "int8-sst2", "", 0), {"sentences": 60.0, "labels": ["0", "1", "1"]})
    records.add(Key("classification", name, "", 0), {"sentences": 20.0, "labels": ["0", "1", "0"]})
    records.add(Key("classification", name, "sorted", 0), {"sentences": 30.0, "labels": ["0", "1", "0"]})
    table = tables.classification(records, name)
    assert row(table, "int8-sst2") == ["int8-sst2", "60.0", "3.00", "2.00", "2 of 3"]
    assert row(table, f"{name}, by length")[1:] == ["30.0", "1.50", "1.00", "3 of 3"]


def test_the_tables_of_growth_share_and_speculation(records: Records) -> None:
    figures = {"decode": 20.0, "median": 50.0, "prefill": 1.5, "rss": 800.0, "peak": 900.0, "context": 512}
    records.add(Key("growth", "int4", "512", 0), figures)
    series = {"context": 512, "median": 50.0, "p99": 60.0, "slowest": 70.0, "steps": [50.0] * 3}
    records.add(Key("growth", "int4", "series", 0), series)
    text = own_tables.growth(records)
    assert "| 512 | float32 | 20.0 | 50.0 | 1.5 | 800 | 900 |" in text
    records.add(Key("growth", "int4", "512 int8", 0), figures | {"decode": 25.0})
    records.add(Key("quality", "int4", "", 0), {"kl": 0.03, "int8_cache": {"kl": 0.031, "top1": 0.9}})
    assert "| 512 | int8 | 25.0 | 50.0 | 1.5 | 800 | 900 |" in own_tables.growth(records)
    assert "with a KV cache of int8 (and top-1): int4 0.03100 (90.0 %)." in own_tables.growth(records)
    assert "3 steps one after the other, from 512 positions on: median 50.0 ms" in text
    assert text.endswith("99 in 100 within 60.0 ms, the slowest 70.0 ms.")
    records.add(Key("share", "int4", "", 0), {"share": 0.0123, "own": 250.0, "step": 20000.0})
    assert own_tables.share(records).startswith("Of a decode step of 20.00 ms, 250 µs (1.2 %) are spent outside")
    seconds: Record = {"seconds": {"without": 9.0, "with": 3.0, "auto": 3.0}, "speedup": {"with": 3.0, "auto": 3.0}}
    seconds["decode"] = {"with": 4.0, "auto": 4.0}
    both: Record = {"edit": {"prompt": 1258, "new": 512, "same": True, **seconds}}
    both["free"] = both["edit"] | {"same": False}
    records.add(Key("speculation", "int4", "", 0), both)
    table = own_tables.speculation(records)
    assert "| 1,258 | 512 | 9.0 | 3.0 | 3.0 | 3.00 | 3.00 | 4.00 | 4.00 | yes |" in table
    assert "| **no** |" in table
    assert "scheduler" not in table
    both["again"] = {"new": 512, "first": 9.0, "second": 1.5, "same": True}
    both["structured"] = {"new": 180, "seconds": {"without": 4.0, "with": 2.0, "auto": 2.5}, "same": True}
    both["costs"] = {"128": {"step": 10.0, "2": 1.01, "8": 1.5}, "2048": {"step": 11.0, "2": 1.1, "8": 1.8}}
    records.add(Key("speculation", "int4", "", 1), both)
    table = own_tables.speculation(records)
    assert "a second request to the same scheduler: 1.5 s instead of 9.0 (the same tokens)." in table
    assert "Four records by a JSON schema, 180 tokens, sampled: 2.5 s with guesses and forced tokens read" in table
    assert "| context | step ms | steps for 2 tokens | steps for 8 tokens |" in table
    assert "| 2,048 | 11.0 | 1.10 | 1.80 |" in table


def test_a_profile_sums_up_the_last_passes_by_module(records: Records) -> None:
    def run(start: int) -> Record:
        return {"name": "model_run", "ts": start, "dur": 100}

    def kernel(start: int, node: str, operator: str, taken: int) -> Record:
        return {"name": f"{node}_kernel_time", "ts": start, "dur": taken, "args": {"op_name": operator}}

    events: list[Record] = [{"name": "session_initialization", "ts": 0, "dur": 5}]
    events += [run(10), kernel(11, "model.layers.0.mlp.up_proj/MatMulNBits", "MatMulNBits", 999)]  # the prefill
    for start in (200, 400):
        events.append(run(start))
        events.append(kernel(start + 1, "model.layers.0.mlp.up_proj/MatMulNBits", "MatMulNBits", 30))
        events.append(kernel(start + 2, "model.layers.11.mlp.up_proj/MatMulNBits", "MatMulNBits", 10))
        events.append(kernel(start + 3, "MatMulNBits", "MatMulNBits", 20))
    found = summary(events, 2)
    assert found == {"kernels": {"mlp.up_proj MatMulNBits": 40.0, "lm_head MatMulNBits": 20.0}, "within": 100.0}
    records.add(Key("profile", "int4", "", 0), found)
    table = own_tables.profile(records, {"mlp.up_proj MatMulNBits": 1_200_000, "lm_head MatMulNBits": 1000})
    assert row(table, "mlp.up_proj MatMulNBits")[1:] == ["40 %", "1", "30.0"]  # 1.2 MB in 40 µs
    assert row(table, "lm_head MatMulNBits")[1:] == ["20 %", "", ""]
    assert row(table, "between kernels")[1] == "40 %"
    assert layerless("Slice", "Slice") == "graph Slice"


def test_fewer_passes_than_steps_are_refused() -> None:
    found = [passes.Pass(0.0, 1.0)] * 5
    assert len(passes.last(found, 4)) == 4
    with pytest.raises(SystemExit, match="5 passes were recorded for 5 steps: some steps do not go through"):
        passes.last(found, 5)


def test_the_page_keeps_its_prose_and_shows_its_plots(records: Records, tmp_path: Path) -> None:
    (tmp_path / "runtime.md").write_text(
        "# Runtime\n\nBefore.\n\n<!-- begin: written by runtime.py -->\nold\n<!-- end -->\n\nAfter.\n"
    )
    for context in (512, 4096):
        records.add(Key("growth", "int4", str(context), 0), {"context": context, "decode": 20.0, "peak": 800.0})
    records.add(Key("growth", "int4", "4096 int8", 0), {"context": 4096, "decode": 30.0, "peak": 500.0})
    records.add(Key("growth", "int4", "series", 0), {"context": 512, "steps": [20.0, 21.0, 19.0]})
    variants = [ALL["int4"], ALL["openvino-int4"]]
    runtime_page.write(tmp_path, "new", records, variants)
    text = (tmp_path / "runtime.md").read_text()
    assert text.startswith("# Runtime\n\nBefore.\n")
    assert text.endswith("<!-- end -->\n\nAfter.\n")
    assert "new\n\n![Decode and prefill](runtime-speed.svg)" in text
    assert "old" not in text
    shown = {
        "runtime-speed.svg": "prefill of 2,048, tokens/s",
        "runtime-growth.svg": "500",
        "runtime-steps.svg": "step, ms",
    }
    for name, word in shown.items():
        assert word in [element.text for element in ElementTree.parse(tmp_path / name).iter()]


def test_a_missing_page_is_written(tmp_path: Path) -> None:
    generated.fill(tmp_path / "a.md", "Title", "a.py", "body")
    assert (tmp_path / "a.md").read_text() == "# Title\n\n<!-- begin: written by a.py -->\n\nbody\n\n<!-- end -->\n"
