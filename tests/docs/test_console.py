"""The console blocks of README, run on the tiny checkpoints, print what they show; ``...`` stands for any lines."""

import doctest
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from intaglio.cli.main import cli

from .pages import ROOT, blocks

README = ROOT / "README.md"
_COMMAND = re.compile(r"^\$ intaglio (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


@pytest.mark.slow
def test_the_tour_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(tmp_path)
    checker = doctest.OutputChecker()
    commands = [match for block in blocks(README, "console") for match in _COMMAND.findall(block.text)]
    assert len(commands) >= 5
    for arguments, expected in commands:
        done = CliRunner().invoke(cli, shlex.split(arguments), prog_name="intaglio")
        assert done.exception is None or isinstance(done.exception, SystemExit), arguments
        printed = done.output if done.output.endswith("\n") else done.output + "\n"
        assert checker.check_output(expected, printed, doctest.ELLIPSIS), printed
