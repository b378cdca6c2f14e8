"""The dispatcher: help, usage errors, and the message and exit code of each kind of exception."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from intaglio.cli.main import VERBS, _show_warning, cli
from intaglio.cli.verbs import verify as verify_module
from intaglio.errors import CheckError, IntaglioWarning, UsageError
from intaglio.tests.cli.conftest import MakeArtifact, Run

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / ".dev")}
COMMAND = [sys.executable, "-m", "intaglio.cli.main"]


def test_help_lists_every_verb_with_its_line(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for verb in VERBS:
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None
        assert f"  {verb:<8}  {command.get_short_help_str()}\n" in result.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(run: Run, verb: str) -> None:
    result = run(verb, "--help")
    assert result.exit_code == 0
    assert f"Example:\n    intaglio {verb} " in result.stdout
    assert "--json" in result.stdout


def test_version(run: Run) -> None:
    assert run("--version").stdout == "intaglio, version 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["polish"], "No such command 'polish'"),
        (["genrate", "out"], "No such command 'genrate'; did you mean 'generate'?"),
        (["quantise"], "No such command 'quantise'; did you mean 'quantize'?"),
        (["generate", "a", "b", "--max-tokens", "3"], "--max-new-tokens"),
        (["verify"], "Missing argument 'ARTIFACT'"),
        (["verify", "a", "b"], "unexpected extra argument"),
        (["export", "a", "b", "--precision", "int3"], "Invalid value for '--precision'"),
        (["generate", "a", "b", "--max-new-tokens", "0"], "Invalid value for '--max-new-tokens'"),
        (["classify", "a"], "Missing argument 'TEXT...'"),
    ],
)
def test_bad_usage_exits_2_with_a_message_on_stderr(run: Run, arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("error", "exit_code", "message"),
    [
        (UsageError("the thing, the place, the remedy"), 2, "Error: the thing, the place, the remedy\n"),
        (CheckError("the answer is no"), 1, "Error: the answer is no\n"),
        (PermissionError(13, "Permission denied", "/some/file"), 2, "Error: /some/file: Permission denied\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_exceptions_become_a_message_and_an_exit_code(
    run: Run,
    make_artifact: MakeArtifact,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    exit_code: int,
    message: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(verify_module, "read_manifest", fail)
    result = run("verify", make_artifact())
    assert (result.exit_code, result.stderr, result.stdout) == (exit_code, message, "")


def test_a_bug_keeps_its_traceback(run: Run, make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no file is named")

    monkeypatch.setattr(verify_module, "read_manifest", fail)
    assert isinstance(run("verify", make_artifact()).exception, OSError)


def test_a_closed_pipe_is_not_an_error(make_artifact: MakeArtifact) -> None:
    # The pipe's reading end is closed before the command writes.
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, "inspect", str(make_artifact())], stdout=write, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


WAITS = """
import sys, time
from intaglio.cli import main
from intaglio.cli.verbs import verify

def wait(*_):
    sys.stderr.write("inside\\n")
    sys.stderr.flush()
    time.sleep(60)

verify.read_manifest = wait
sys.argv[:1] = ["intaglio", "verify"]
main.main()
"""


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_unwind(make_artifact: MakeArtifact, number: signal.Signals, exit_code: int) -> None:
    """A signal ends a verb in its middle, without a traceback."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS, str(make_artifact())],
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "inside\n"
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == exit_code
    assert "Traceback" not in stderr


def test_a_warning_of_intaglio_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    _show_warning(IntaglioWarning("slow; do this"), IntaglioWarning, "a.py", 3)
    assert capsys.readouterr().err == "Warning: slow; do this\n"
    _show_warning(UserWarning("other"), UserWarning, "a.py", 3)
    assert capsys.readouterr().err == "a.py:3: UserWarning: other\n"
