"""``intaglio batch``: what it prints and writes; ``test_file`` has the lines."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from intaglio.cli.main import cli


def test_a_file_is_answered_and_a_second_run_goes_on(artifacts: dict[str, Path], tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    body = {"model": "small", "prompt": "The temple", "max_tokens": 4}
    lines = [
        json.dumps({"custom_id": f"c{number}", "method": "POST", "url": "/v1/completions", "body": body})
        for number in range(3)
    ]
    source.write_text("\n".join([*lines, "no JSON"]))
    arguments = ["batch", str(source), str(target), f"small={artifacts['qwen2']}", "--slots", "2", "--threads", "1"]
    first = CliRunner().invoke(cli, arguments)
    assert (first.exit_code, first.output.split()) == (0, ["answers", str(target), "lines", "4", "failed", "1"])
    for _ in range(2):
        answers = [json.loads(line) for line in target.read_text().splitlines()]
        assert [answer["custom_id"] for answer in answers] == ["c0", "c1", "c2", None]
        assert [answer["response"] is None for answer in answers] == [False, False, False, True]
        again = CliRunner().invoke(cli, [*arguments, "--json"])  # all lines are answered
        assert json.loads(again.output) == {"answers": str(target), "lines": 4, "failed": 0}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("in.jsonl", "has the requests; give another file for the answers"),
        ("other.jsonl", "line 1 is not the answer to line 1 of"),
    ],
)
def test_no_file_is_overwritten(artifacts: dict[str, Path], tmp_path: Path, target: str, message: str) -> None:
    (tmp_path / "in.jsonl").write_text('{"custom_id": "a"}\n')
    (tmp_path / "other.jsonl").write_text('{"custom_id": "b"}\n')
    before = (tmp_path / target).read_text()
    arguments = ["batch", str(tmp_path / "in.jsonl"), str(tmp_path / target), str(artifacts["qwen2"])]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert (tmp_path / target).read_text() == before
