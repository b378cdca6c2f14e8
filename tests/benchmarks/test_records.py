"""Records are stored line by line, so that an interrupted run continues."""

from pathlib import Path

from intaglio.benchmarks.harness.records import Key, Records


def test_records_are_read_back_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "runtime" / "records.jsonl"
    Records(path).add(Key("speed", "int4", "", 0), {"decode": 2.0})
    again = Records(path)
    assert again.has(Key("speed", "int4", "", 0))
    assert not again.has(Key("speed", "int4", "", 1))
    assert not again.has(Key("growth", "int4", "", 0))
    assert [record["decode"] for record in again.of("speed", "int4")] == [2.0]


def test_records_are_sorted_by_their_rounds(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.jsonl")
    for number in (2, 0, 1):
        records.add(Key("growth", "int4", "512", number), {"n": number})
        records.add(Key("growth", "int4", "series", number), {"n": -1})
    assert [record["n"] for record in records.of("growth", "int4", "512")] == [0, 1, 2]
    assert records.names("growth") == ["int4"]


def test_forgetting_drops_sections_and_variants(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.jsonl")
    for section in ("speed", "share"):
        for name in ("int4", "fp32"):
            records.add(Key(section, name, "", 0), {})
    records.forget(["speed"], ["int4"])
    left = {(record["section"], record["name"]) for record in Records(records.path).all}
    assert left == {("speed", "fp32"), ("share", "int4"), ("share", "fp32")}
    records.forget(["share"], [])
    assert {record["section"] for record in Records(records.path).all} == {"speed"}
