"""``intaglio verify``: files that differ from the manifest in every possible way."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from intaglio.tests.cli.conftest import MakeArtifact, Run
from intaglio.tests.files.artifact_files import data_of


def flip(folder: Path) -> None:
    data = bytearray((data_of(folder)).read_bytes())
    data[1234] ^= 1
    (data_of(folder)).write_bytes(data)


def cut(folder: Path) -> None:
    with (data_of(folder)).open("r+b") as stream:
        stream.truncate(4000)


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (flip, "onnx/model.onnx_data: its SHA-256 differs from the manifest's"),
    (cut, "onnx/model.onnx_data: 4,000 bytes, the manifest says 4,096"),
    (lambda folder: (folder / "config.json").unlink(), "config.json: missing"),
]


def test_an_untouched_artifact(run: Run, make_artifact: MakeArtifact) -> None:
    folder = make_artifact()
    result = run("verify", folder)
    assert result.exit_code == 0
    assert result.stdout == f"{folder}: 3 files, 4.13 kB, all match the manifest\n"
    assert result.stderr == ""


@pytest.mark.parametrize(("damage", "problem"), DAMAGES)
def test_damage_exits_1_and_names_the_file(
    run: Run, make_artifact: MakeArtifact, damage: Callable[[Path], None], problem: str
) -> None:
    folder = make_artifact()
    damage(folder)
    result = run("verify", folder)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == f"Error: {folder} does not match its manifest; export it again\n  {problem}\n"


def test_json_reports_the_result(run: Run, make_artifact: MakeArtifact) -> None:
    folder = make_artifact()
    assert json.loads(run("verify", folder, "--json").stdout) == {"artifact": str(folder), "ok": True, "problems": []}
    flip(folder)
    (folder / "config.json").unlink()
    result = run("verify", folder, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert not found["ok"]
    assert sorted(found["problems"]) == [DAMAGES[2][1], DAMAGES[0][1]]


@pytest.mark.parametrize(
    ("name", "what"), [("nowhere", "there is no such folder"), ("empty", "it has no intaglio.json")]
)
def test_a_folder_that_is_not_an_artifact(run: Run, tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "empty").mkdir()
    result = run("verify", tmp_path / name)
    assert result.exit_code == 2
    assert result.stderr == (
        f"Error: {tmp_path / name} is not an intaglio artifact: {what}; make one with `intaglio export`\n"
    )
