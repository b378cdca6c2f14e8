"""The set-up that every script begins with, run with stand-ins for Python and pip: no network, nothing installed."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTHON = r"""#!/bin/bash
# Answers as the interpreter would, and notes what pip is asked for.
case "$1 $2" in
    "-V "*) echo "Python 3.12.9" ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip") [[ -n $REFUSED && "$*" =~ $REFUSED ]] && exit 1
              echo "${*: -1}" >>"$NOTES"
              if [[ "$*" == *torch* ]]; then touch "$NOTES.torch"; fi ;;
    "-c import torch") [ -e "$NOTES.torch" ] ;;
    *) exit 0 ;;
esac
"""
KERNELS = "runtime/kernels/native"
BROKEN = "#!/bin/bash\necho 'pyenv: command not found' >&2\nexit 127\n"


TOOL = r"""#!/bin/bash
# Stands in for ruff, mypy or pyright; mypy and pyright each end only once the other has started.
name=$(basename "$0")
touch "$NOTES.$name"
case $name in mypy) other=pyright ;; pyright) other=mypy ;; *) other=ruff ;; esac
for _ in {1..100}; do
    [ -e "$NOTES.$other" ] && break
    sleep 0.1
done
echo "report of $name $*"
[ -e "$NOTES.$other" ] && [[ ! "$name $*" =~ $FAILING ]]
"""


class Workshop:
    """A copy of the scripts in a folder of their own, with stand-ins first on the PATH."""

    def __init__(self, folder: Path, interpreters: Mapping[str, str]) -> None:
        self.root, self.notes, self.path = folder / "repository", folder / "notes", folder / "bin"
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        shutil.copy(ROOT / "pyproject.toml", self.root)
        shutil.copytree(ROOT / KERNELS, self.root / KERNELS)
        self.path.mkdir()
        for name in ("python3", "python3.11", "python3.12", "python3.13"):
            (self.path / name).write_text(interpreters.get(name, BROKEN))
            (self.path / name).chmod(0o755)

    def set_up(self, refused: str = "") -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self.path}:/usr/bin:/bin", "NOTES": str(self.notes), "REFUSED": refused}
        return subprocess.run(
            ["bash", "-c", ". scripts/_env.sh; command -v python"],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def lint(self, failing: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run scripts/lint; the commands that match the expression ``failing`` fail."""
        for name in ("ruff", "mypy", "pyright"):
            (self.root / ".venv" / "bin" / name).write_text(TOOL)
            (self.root / ".venv" / "bin" / name).chmod(0o755)
        environment = {"PATH": "/usr/bin:/bin", "NOTES": str(self.notes), "FAILING": failing, "REFUSED": ""}
        return subprocess.run(
            [self.root / "scripts" / "lint", *arguments], env=environment, capture_output=True, text=True, check=False
        )

    def asked_of_pip(self) -> list[str]:
        """The last argument of every successful pip install since the last call."""
        asked = self.notes.read_text().split() if self.notes.exists() else []
        self.notes.unlink(missing_ok=True)
        return asked


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path, {"python3.12": PYTHON})


def test_broken_interpreters_are_passed_over_and_torch_comes_first(workshop: Workshop) -> None:
    done = workshop.set_up()
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{workshop.root}/.venv/bin/python\n"
    assert "with Python 3.12.9" in done.stderr
    assert workshop.asked_of_pip() == ["torch==2.13.0+cpu", f"{workshop.root}[dev]"]


@pytest.mark.parametrize(
    "changed", ["pyproject.toml", "scripts/backend/compile_kernels.py", f"{KERNELS}/matmul/matmul.h"]
)
def test_the_environment_is_reused_until_what_it_is_made_of_changes(workshop: Workshop, changed: str) -> None:
    workshop.set_up()
    workshop.asked_of_pip()
    done = workshop.set_up()
    assert (done.returncode, done.stderr) == (0, "")
    assert workshop.asked_of_pip() == []
    with (workshop.root / changed).open("a") as stream:
        stream.write("\n")
    workshop.set_up()
    assert workshop.asked_of_pip() == [f"{workshop.root}[dev]"]


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="the index of CPU builds is asked on Linux only")
def test_other_sources_of_torch_are_tried_in_turn(workshop: Workshop) -> None:
    workshop.set_up(refused=r"torch==2.13.0\+cpu")
    assert workshop.asked_of_pip()[0] == "torch==2.13.0"
    shutil.rmtree(workshop.root / ".venv")
    (workshop.notes.parent / "notes.torch").unlink()
    workshop.set_up(refused="torch==|index-url")
    assert workshop.asked_of_pip()[0] == "torch>=2.9"


@pytest.mark.parametrize(
    ("failing", "said"),
    [
        ("never", ""),
        ("^ruff check", "lint failed: ruff check\n"),
        ("^mypy", "lint failed: mypy\n"),
        ("^pyright", "lint failed: pyright\n"),
        ("^(ruff format|mypy|pyright)", "lint failed: ruff format,mypy,pyright\n"),
    ],
)
def test_lint_checks_types_side_by_side_and_says_which_tool_failed(workshop: Workshop, failing: str, said: str) -> None:
    workshop.set_up()
    done = workshop.lint(failing)
    assert (done.returncode, done.stderr) == (1 if said else 0, said)
    ran = [line.partition("report of ")[2].strip() for line in done.stdout.splitlines()]
    assert ran == ["ruff check .", "ruff format --check .", "mypy", "pyright"]


def test_an_installation_that_fails_is_tried_again(workshop: Workshop) -> None:
    assert workshop.set_up(refused="editable").returncode != 0
    assert workshop.asked_of_pip() == ["torch==2.13.0+cpu"]
    assert workshop.set_up().returncode == 0
    assert workshop.asked_of_pip() == [f"{workshop.root}[dev]"]


def test_no_interpreter_at_all(tmp_path: Path) -> None:
    done = Workshop(tmp_path, {}).set_up()
    assert done.returncode != 0
    assert "no Python 3.11, 3.12 or 3.13 with venv was found; install one" in done.stderr


@pytest.mark.parametrize("name", ["_env.sh", "demo", "docs", "lint", "test", "test-arm"])
def test_scripts_are_sound_bash(name: str) -> None:
    subprocess.run(["bash", "-n", ROOT / "scripts" / name], check=True)
    assert os.access(ROOT / "scripts" / name, os.X_OK) == (name != "_env.sh")
