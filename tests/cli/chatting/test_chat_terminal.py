"""`intaglio chat` in a pseudo-terminal, driven as a person would drive it."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from intaglio.exporter import export
from intaglio.tests.runtime.generation.scripted import CHECKPOINTS

ROOT = Path(__file__).parents[3]
PATIENCE = 120  # seconds to wait for an event; the machine may be busy

# The command itself, with a model that takes its time, so that there is an answer to be interrupted.
PROGRAM = """
import os, sys, time
os.close(os.open(os.ttyname(0), os.O_RDWR))  # the first terminal that a session opens is its own: Ctrl-C comes from it
from intaglio.runtime.sequence.stream import TextStream
at_once = TextStream.__next__
def slowly(stream):
    time.sleep(0.02)
    return at_once(stream)
TextStream.__next__ = slowly
from intaglio.cli.main import main
main()
"""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b=|\x1b>")


class Terminal:
    """A process in a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self.screen, inner = pty.openpty()
        self.resize(24, 80)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("LC_")},
                "PYTHONPATH": str(ROOT / ".dev"),
                "LC_ALL": "C.UTF-8",
                "TERM": "xterm",
                "INPUTRC": os.devnull,
                "OMP_NUM_THREADS": "1",
            },
        )
        os.close(inner)
        self._bytes = b""
        self._read = 0

    @property
    def text(self) -> str:
        """The text shown so far, without colours and cursor movements."""
        return ESCAPES.sub("", self._bytes.decode(errors="replace")).replace("\r\n", "\n").replace("\r", "")

    def expect(self, pattern: str) -> str:
        """Wait for the pattern in new output; return the new text up to its end."""
        limit = time.monotonic() + PATIENCE
        while not (found := re.compile(pattern).search(self.text, self._read)):
            more = self._more(limit - time.monotonic())
            assert more, f"{pattern!r} did not come; the terminal shows:\n{self.text}"
        new = self.text[self._read : found.end()]
        self._read = found.end()
        return new

    def type(self, keys: str) -> None:
        os.write(self.screen, keys.encode())

    def rest(self) -> None:
        """Wait until the process waits for keys: readline misses a signal between its prompt and its wait."""
        state = Path(f"/proc/{self.process.pid}/stat")
        for _ in range(3):  # a process asleep at three checks waits for keys
            time.sleep(0.05)
            while state.exists() and state.read_text().rpartition(") ")[2][0] != "S":
                time.sleep(0.05)

    def resize(self, rows: int, columns: int) -> None:
        """Resize the terminal; the kernel sends SIGWINCH to the foreground process."""
        fcntl.ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def ended(self) -> int:
        """Read all output, and return the exit code."""
        limit = time.monotonic() + PATIENCE
        while self._more(limit - time.monotonic()):
            pass
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.screen)

    def _more(self, seconds: float) -> bool:
        ready, _, _ = select.select([self.screen], [], [], max(0, seconds))
        try:
            data = os.read(self.screen, 4096) if ready else b""
        except OSError:  # Linux raises EIO once the other end is closed
            data = b""
        self._bytes += data
        return bool(data)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("terminal") / "out"
    export(CHECKPOINTS / "tiny-qwen2", out)
    return out


@pytest.fixture
def terminal(artifact: Path, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    options = getattr(request, "param", ())
    terminal = Terminal("chat", str(artifact), "--temperature", "0", "--threads", "1", "--system", "Brief.", *options)
    try:
        yield terminal
    finally:
        terminal.close()


def saved(terminal: Terminal, path: Path) -> list[tuple[str, str]]:
    terminal.type(f"/save {path}\n")
    terminal.expect(r"\d messages written to ")
    terminal.expect("> ")
    messages = json.loads(path.read_text(encoding="utf-8"))["messages"]
    return [(message["role"], message["content"]) for message in messages]


@pytest.mark.parametrize("terminal", [("--max-new-tokens", "60")], indirect=True)
def test_a_session(terminal: Terminal, tmp_path: Path) -> None:
    terminal.expect(r"out: qwen2, fp32; /help lists the commands\n> ")

    # An answer streams: its beginning is there while its end is not.
    terminal.type("The album was\n")
    terminal.expect(r"The album was\n\S")
    assert "tokens/s" not in terminal.text
    terminal.expect(r"\[\d+ tokens, [\d.]+ tokens/s, [\d.]+ s to the first(, cut off by the token limit)?\]\n> ")

    # Ctrl-C stops the answer, not the program; the text so far stays.
    terminal.type("In 1942, the ship\n")
    terminal.expect(r"the ship\n\S+ ")
    terminal.type("\x03")
    terminal.expect(r"\[stopped\]\n> ")
    first = saved(terminal, tmp_path / "first.json")
    assert [role for role, _ in first] == ["system", "user", "assistant", "user", "assistant"]
    assert 0 < len(first[4][1]) < 200
    assert first[4][1] in terminal.text

    # A resize in an answer and at the prompt changes nothing; nor does a line longer than the terminal is wide.
    terminal.type("The team\n")
    terminal.expect(r"The team\n\S")
    terminal.resize(10, 30)
    terminal.expect(r"tokens/s.*\]\n> ")
    terminal.resize(40, 120)
    asked = "서울은 어디에 있나요? 🙂 é " + "long " * 20 + "end"
    terminal.type(asked + "\n")
    terminal.expect(r"tokens/s.*\]\n> ")
    assert saved(terminal, tmp_path / "second.json")[7] == ("user", asked)

    # A line can be edited before it is sent.
    terminal.type("The teak")
    terminal.type("\x7fm\n")
    terminal.expect(r"tokens/s.*\]\n> ")
    assert saved(terminal, tmp_path / "third.json")[9] == ("user", "The team")

    terminal.type("/reset\n")
    terminal.expect(r"The conversation is empty again.\n> ")
    assert saved(terminal, tmp_path / "fourth.json") == [("system", "Brief.")]
    terminal.type("/help\n")
    terminal.expect(r"/save FILE   write the conversation as JSON\n")
    terminal.expect("> ")

    # A second Ctrl-C ends it.
    terminal.rest()
    terminal.type("half a line\x03")
    terminal.expect(r"press Ctrl-C again to end the conversation\n> ")
    terminal.rest()
    terminal.type("\x03")
    assert terminal.ended() == 0
    assert "Traceback" not in terminal.text


@pytest.mark.parametrize("terminal", [("--max-new-tokens", "400")], indirect=True)
def test_a_conversation_that_fills_the_context_goes_on(terminal: Terminal) -> None:
    terminal.expect("> ")
    terminal.type("the seal " * 250 + "\n")
    terminal.expect(r"the model's context is 512, .*; /reset clears the conversation\n")
    terminal.expect("> ")
    terminal.type("The album was\n")
    terminal.expect(r"The album was\n\S+ ")
    terminal.type("\x03")
    terminal.expect(r"\[stopped\]\n> ")
    terminal.type("\x04")  # Ctrl-D
    assert terminal.ended() == 0


def test_a_termination_unwinds(terminal: Terminal) -> None:
    terminal.expect("> ")
    terminal.rest()
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.ended() == 143
    assert "Traceback" not in terminal.text
