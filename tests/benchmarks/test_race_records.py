"""Records are kept line by line, and what is there is not measured again."""

from pathlib import Path

from race.records import Key, Records


def test_records_survive_and_say_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "runtime" / "records.jsonl"
    Records(path).add(Key("speed", "int4", "", 0), {"decode": 2.0})
    again = Records(path)
    assert again.has(Key("speed", "int4", "", 0))
    assert not again.has(Key("speed", "int4", "", 1))
    assert not again.has(Key("growth", "int4", "", 0))
    assert [record["decode"] for record in again.of("speed", "int4")] == [2.0]


def test_records_come_in_the_order_of_their_rounds(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.jsonl")
    for number in (2, 0, 1):
        records.add(Key("growth", "int4", "512", number), {"n": number})
        records.add(Key("growth", "int4", "series", number), {"n": -1})
    assert [record["n"] for record in records.of("growth", "int4", "512")] == [0, 1, 2]
    assert records.names("growth") == ["int4"]


def test_forgetting_names_sections_and_contenders(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.jsonl")
    for section in ("speed", "share"):
        for name in ("int4", "fp32"):
            records.add(Key(section, name, "", 0), {})
    records.forget(["speed"], ["int4"])
    left = {(record["section"], record["name"]) for record in Records(records.path).all}
    assert left == {("speed", "fp32"), ("share", "int4"), ("share", "fp32")}
    records.forget(["share"], [])
    assert {record["section"] for record in Records(records.path).all} == {"speed"}
