"""Jobs over rows without Ray: order, blocks, and what an interruption leaves."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from intaglio.errors import OutputError, UsageError
from intaglio.serving.batch.job import Blocks, run
from intaglio.serving.batch.rows import Row

ROWS = [{"id": f"r{number}", "text": str(number)} for number in range(25)]


class Doubling:
    """A task without a model, which remembers its rows."""

    def __init__(self, fail_at: str | None = None) -> None:
        self.seen: list[str] = []
        self.fail_at = fail_at

    def rows(self, rows: Sequence[Row]) -> list[Row]:
        for row in rows:
            if row["text"] == self.fail_at:
                raise KeyboardInterrupt
            self.seen.append(row["text"])
        return [{**row, "doubled": row["text"] * 2, "error": None} for row in rows]


def job(folder: Path, task: Any, rows: Any = ROWS, **options: Any) -> Blocks:
    blocks = Blocks(folder, "id", {"task": "doubling"})
    run(rows, task, blocks, block_rows=10, **options)
    return blocks


def test_results_are_in_the_order_of_the_rows(tmp_path: Path) -> None:
    done: list[int] = []
    blocks = job(tmp_path / "new" / "out", Doubling(), progress=done.append)
    assert [row["doubled"] for row in blocks] == [str(n) * 2 for n in range(25)]
    assert done == [10, 20, 25]
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == [
        "job.json",
        "part-000000.jsonl",
        "part-000001.jsonl",
        "part-000002.jsonl",
    ]


def test_an_interrupted_job_goes_on_without_its_finished_rows(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        job(tmp_path, Doubling(fail_at="17"))
    (tmp_path / ".part-000001.jsonl.begun").write_text('{"id": "r10", "te')  # the power went
    again = Doubling()
    blocks = job(tmp_path, again)
    assert again.seen == [str(n) for n in range(10, 25)]
    assert [row["id"] for row in blocks] == [row["id"] for row in ROWS]
    third = Doubling()
    job(tmp_path, third, [*ROWS, {"id": "new", "text": "x"}])
    assert third.seen == ["x"]


def test_a_folder_takes_one_job(tmp_path: Path) -> None:
    job(tmp_path, Doubling())
    with pytest.raises(OutputError, match=r"has the results of another job, .*doubling.*; give another folder"):
        Blocks(tmp_path, "id", {"task": "tripling"})


def test_rows_have_names_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a row has no column 'id', which is to name it; it has text"):
        job(tmp_path / "a", Doubling(), [{"text": "x"}])
    with pytest.raises(UsageError, match="two rows have id 'r1'; give each a name of its own"):
        job(tmp_path / "b", Doubling(), [{"id": "r1", "text": "x"}, {"id": "r1", "text": "y"}])
    assert list((tmp_path / "b").glob("part*")) == []


def test_a_block_is_a_file_of_json_lines(tmp_path: Path) -> None:
    job(tmp_path, Doubling(), [{"id": 1, "text": "ä\u2028b"}])
    text = (tmp_path / "part-000000.jsonl").read_text(encoding="utf-8")
    assert text.count("\n") == 1
    assert json.loads(text) == {"id": 1, "text": "ä\u2028b", "doubled": "ä\u2028bä\u2028b", "error": None}
