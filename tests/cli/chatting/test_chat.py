"""`intaglio chat` without a terminal: pipes, JSON lines, tool files, and the history of a conversation."""

import json
import sys
from collections.abc import Generator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from intaglio.cli.chatting import screen as screens
from intaglio.cli.chatting.talk import Talk
from intaglio.cli.chatting.toolfile import NO_TOOLS, Toolbox, read_tools
from intaglio.errors import InputError, UsageError
from intaglio.exporter import export
from intaglio.runtime import Generation
from intaglio.runtime.sequence.stream import TextStream
from intaglio.tests.cli.conftest import FakeTerminal, Run
from intaglio.tests.runtime.generation.scripted import CHECKPOINTS, Scripted

CALL = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
TOOLS = '''
from __future__ import annotations

from math import fsum

def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: One.
        b: The other.
    """
    return _sum([a, b])

def _sum(numbers):
    return int(fsum(numbers))
'''


class Fake:
    """A screen with scripted input; it records what is shown. An exception among the lines is raised."""

    def __init__(self, *lines: Any, interactive: bool = True) -> None:
        self.lines = list(lines)
        self.shown: list[str] = []
        self.interactive = interactive
        self.raise_at: str | None = None

    def ask(self, prompt: str) -> str | None:
        if prompt != "> ":
            self.shown.append(prompt)
        line = self.lines.pop(0) if self.lines else None
        if isinstance(line, BaseException):
            raise line
        assert line is None or isinstance(line, str)
        return line

    def event(self, event: Any) -> None:
        if event.kind in ("call", "broken_call"):
            self.shown.append(event.text)
        if event.text == self.raise_at:
            self.raise_at = None
            raise KeyboardInterrupt

    def end(self, reply: Any, speed: str) -> None:
        self.shown.append(f"{reply.text} [{speed}]" if speed == "stopped" else reply.text)

    def result(self, result: Any) -> None:
        self.shown.append(f"= {result.content}")

    def note(self, text: str) -> None:
        self.shown.append(text.strip())

    def problem(self, text: str) -> None:
        self.shown.append(f"! {text}")


def talk(screen: Fake, *texts: str, system: str | None = None, toolbox: Toolbox = NO_TOOLS) -> tuple[Talk, Scripted]:
    """Run a conversation to its end, with a model that replies with ``texts``."""
    model = Scripted("tiny-qwen2", texts)
    model.manifest = SimpleNamespace(family="qwen2", precision="fp32")  # type: ignore[attr-defined]
    talk = Talk(model, screen, "out", system, toolbox, {})  # type: ignore[arg-type]
    talk.run()
    return talk, model


def test_turns_follow_each_other() -> None:
    screen = Fake("hi", "", "  ", "서울?", "/quit", "never")
    done, model = talk(screen, "hello", "네", system="Be brief.")
    assert [(m["role"], m["content"]) for m in done.history] == [
        ("system", "Be brief."),
        ("user", "hi"),
        ("assistant", "hello"),
        ("user", "서울?"),
        ("assistant", "네"),
    ]
    assert screen.lines == ["never"]
    assert "hello<|im_end|>\n<|im_start|>user\n서울?" in model.prompts[1]


def test_reset_keeps_the_system_message() -> None:
    done, _ = talk(Fake("hi", "/reset"), "hello", system="Be brief.")
    assert done.history == [{"role": "system", "content": "Be brief."}]


def test_save(tmp_path: Path) -> None:
    path, other = tmp_path / "talk.json", tmp_path / "other.json"
    other.write_text("mine")
    screen = Fake("/save", f"/save {other}", f"/save {tmp_path}/none/x", "하이", f"/save {path}", "b", f"/save {path}")
    talk(screen, "안녕", "c")
    assert screen.shown[1:4] == [
        "! /save has no file; write /save FILE",
        f"! {other} exists; choose another name",
        f"! {tmp_path}/none/x: cannot be written (No such file or directory); choose another file",
    ]
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert saved["artifact"] == "out"
    assert [m["content"] for m in saved["messages"]] == ["하이", "안녕", "b", "c"]
    assert screen.shown[-1] == f"4 messages written to {path}"
    assert other.read_text() == "mine"


def test_slash_commands() -> None:
    screen = Fake("/help", "/rest now", "//etc is what?")
    done, _ = talk(screen, "a folder")
    assert screen.shown[1].startswith("/reset       clear the conversation")
    assert screen.shown[2] == "/rest is not a command; /help lists the commands, and //text sends /text"
    assert done.history[0]["content"] == "/etc is what?"


def test_an_interruption_stops_the_answer_and_keeps_its_beginning() -> None:
    screen = Fake("hi", "more")
    screen.raise_at = "l"
    done, _ = talk(screen, "hello", "there")
    assert [m["content"] for m in done.history] == ["hi", "hel", "more", "there"]
    assert "hel [stopped]" in screen.shown


def test_an_interruption_before_the_first_word_removes_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Fake("hi", "more")
    scripted_stream = Scripted.stream
    prompts = 0

    def stream(self: Scripted, prompt: list[int], **options: Any) -> TextStream[Generation]:
        nonlocal prompts
        prompts += 1
        stream = scripted_stream(self, prompt, **options)
        return TextStream(interrupt(), lambda: Generation("", (), (), "eos")) if prompts == 1 else stream

    def interrupt() -> Generator[str, None, None]:
        yield from ()
        raise KeyboardInterrupt

    monkeypatch.setattr(Scripted, "stream", stream)
    done, _ = talk(screen, "hello", "there")
    assert [m["content"] for m in done.history] == ["more", "there"]


def test_two_interruptions_in_a_row_end_the_conversation() -> None:
    screen = Fake(KeyboardInterrupt(), "hi", KeyboardInterrupt(), KeyboardInterrupt(), "never")
    talk(screen, "hello")
    assert screen.lines == ["never"]
    screen = Fake("hi", KeyboardInterrupt(), "never")
    screen.raise_at = "h"
    talk(screen, "hello")
    assert screen.lines == ["never"]


def test_a_message_that_the_model_cannot_take_is_removed() -> None:
    screen = Fake("a", "\ud800", "b")
    done, _ = talk(screen, "A", "B")
    assert [m["content"] for m in done.history] == ["a", "A", "b", "B"]
    assert any(line.startswith("! the text is not valid Unicode") for line in screen.shown)
    with pytest.raises(Exception, match="the text is not valid Unicode"):
        talk(Fake("\ud800", interactive=False))


def test_functions_of_a_file_are_executed(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(TOOLS)
    toolbox = read_tools(tmp_path / "tools.py")
    assert list(toolbox.functions) == ["add"]
    screen = Fake("1 + 2?")
    done, model = talk(screen, CALL, "It is 3.", toolbox=toolbox)
    assert screen.shown[1:] == ["add(a=1, b=2)", "", "= 3", "It is 3."]
    assert [m["role"] for m in done.history] == ["user", "assistant", "tool", "assistant"]
    assert "<tool_response>\n3\n</tool_response>" in model.prompts[1]


def test_the_user_types_results_of_schemas(tmp_path: Path) -> None:
    schema = {"name": "add", "parameters": {"type": "object", "properties": {"a": {}, "b": {}}}}
    (tmp_path / "tools.json").write_text(json.dumps(schema))
    toolbox = read_tools(tmp_path / "tools.json")
    screen = Fake("1 + 2?", "three")
    done, _ = talk(screen, CALL, "It is three.", toolbox=toolbox)
    assert screen.shown[1:] == ["add(a=1, b=2)", "", "add(a=1, b=2) = ", "= three", "It is three."]
    assert done.history[2]["content"] == "three"
    with pytest.raises(InputError, match=r"standard input ended before the result of add\(a=1, b=2\); give the result"):
        talk(Fake("1 + 2?", interactive=False), CALL, toolbox=toolbox)


def test_broken_calls_are_shown_and_reported_to_the_model() -> None:
    toolbox = Toolbox([{"name": "add"}])
    screen = Fake("1 + 2?")
    talk(screen, CALL.replace("add", "sum"), "3", toolbox=toolbox)
    assert screen.shown[1].endswith("(there is no tool 'sum'; the tools are: add)")
    assert screen.shown[3] == '= {"error": "there is no tool \'sum\'; the tools are: add"}'


def test_a_model_that_only_calls() -> None:
    screen = Fake("go")
    done, _ = talk(screen, *[CALL] * 8, toolbox=Toolbox([{"name": "add"}], {"add": lambda a, b: a + b}))
    assert screen.shown[-1] == "The model called tools in 8 turns without an answer; the turn ends here."
    assert len(done.history) == 17


def test_an_interrupted_tool_removes_the_message() -> None:
    def add(a: int, b: int) -> int:
        raise KeyboardInterrupt

    screen = Fake("go", "again")
    done, _ = talk(screen, CALL, "fine", toolbox=Toolbox([{"name": "add"}], {"add": add}))
    assert "(stopped; the message is removed)" in screen.shown
    assert [m["content"] for m in done.history] == ["again", "fine"]


BAD_FILES: dict[str, tuple[str, str, str]] = {
    "nothing there": ("none.py", "", "no such file; --tools takes FILE.py with functions, or FILE.json with schemas"),
    "another kind": ("x.txt", "x", "--tools takes FILE.py with functions, or FILE.json with schemas; rename it"),
    "no functions": (
        "x.py",
        "from math import sqrt\n",
        "has no functions; define one, with type hints and a docstring",
    ),
    "no type hint": ("x.py", "def f(a): pass\n", "tool f: argument 'a' has no type hint; give one"),
    "an error in it": ("x.py", "a = 1\nb = a / 0\n", "line 2: ZeroDivisionError: division by zero; fix the file"),
    "no Python": ("x.py", "a = 1\ndef (\n", "line 2: SyntaxError: "),
    "no JSON": ("x.json", "{", "cannot be read (Expecting property name enclosed in double quotes: "),
    "no schemas": ("x.json", "[1]", "expected a JSON schema or a list of them; fix the file"),
    "no name": ("x.json", '[{"type": "function"}]', "a tool's schema has no name: "),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_tool_file_that_cannot_be_used(tmp_path: Path, case: str) -> None:
    name, text, message = BAD_FILES[case]
    if text:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as caught:
        read_tools(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert message in str(caught.value)


def test_control_characters_of_the_model_are_shown_as_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    from intaglio.runtime import ChatEvent

    shown = FakeTerminal()
    monkeypatch.setattr(sys, "stdout", shown)
    terminal = screens.Terminal()
    terminal.event(ChatEvent("thought", "\n"))
    terminal.event(ChatEvent("thought", "\nhm"))
    terminal.event(ChatEvent("answer", "a\x1b[2J\tb\x07\x9b\n서울"))
    terminal.event(ChatEvent("answer", "\x1b"))  # a sequence that comes in two chunks
    terminal.event(ChatEvent("answer", "]0;title\x07"))
    text = shown.getvalue()
    assert text == "\x1b[2mhm\x1b[0m\na␛[2J\tb␇␛[\n서울␛]0;title␇"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("chat") / "out"
    export(CHECKPOINTS / "tiny-qwen2", out)
    return out


SETTINGS = ("--max-new-tokens", 12, "--temperature", 0, "--threads", 1)


def test_commands_are_for_terminals(run: Run, artifact: Path, tmp_path: Path) -> None:
    stolen = tmp_path / "stolen.json"
    lines = [f"/save {stolen}", "/reset", "/quit", "//x", "The album was"]
    result = run("chat", artifact, *SETTINGS, "--json", stdin="".join(f"{line}\n" for line in lines))
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == len(lines)
    assert not stolen.exists()


def test_a_line_of_a_pipe_is_sent_as_it_is() -> None:
    done, _ = talk(Fake("//a", "/help", interactive=False), "one", "two")
    assert [message["content"] for message in done.history] == ["//a", "one", "/help", "two"]


def test_a_pipe(run: Run, artifact: Path) -> None:
    one = run("chat", artifact, *SETTINGS, stdin="The album was\n")
    assert (one.exit_code, one.stderr) == (0, "")
    assert one.stdout.strip()
    again = run("chat", artifact, *SETTINGS, stdin="\ufeffThe album was\r\n\n")
    assert again.stdout == one.stdout
    other = run("chat", artifact, *SETTINGS, "--system", "서울", stdin="The album was\n")
    assert other.stdout != one.stdout


def test_json_lines(run: Run, artifact: Path) -> None:
    text = run("chat", artifact, *SETTINGS, stdin="서울?\nand\n").stdout
    result = run("chat", artifact, *SETTINGS, "--json", stdin="서울?\nand\n")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["text"] for line in lines] == text.removesuffix("\n").split("\n")
    assert set(lines[0]) == {"text", "thought", "tool_calls", "broken_calls", "finish_reason", "tokens"}
    assert lines[0]["tokens"] <= 12


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        ((), b"a\n\xff\n", "standard input: byte 0 of a line is not UTF-8; convert the text to UTF-8"),
        ((), "the seal " * 600, "the model's context is 512, and that leaves no room for a new one; shorten it"),
        (("--tools", "none.py"), "a\n", "none.py: no such file; --tools takes FILE.py with functions"),
        (("--temperature", "-1"), "a\n", "temperature must be 0 or more, not -1.0"),
    ],
)
def test_misuse(run: Run, artifact: Path, arguments: tuple[str, ...], stdin: str | bytes, message: str) -> None:
    result = run("chat", artifact, *SETTINGS[:2], *arguments, stdin=stdin)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_options_are_passed_to_the_conversation(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --stop, ``stop`` is None, so that the stop strings of generation_config.json are used."""
    from intaglio.cli.chatting import talk
    from intaglio.cli.verbs import chat

    seen: list[Any] = []
    monkeypatch.setattr(talk.Talk, "__init__", lambda self, *arguments: seen.append(arguments[-1]))
    monkeypatch.setattr(talk.Talk, "run", lambda self: None)

    def load(name: str, _loading: Any) -> Any:
        return SimpleNamespace(name=name, conversation=lambda: nullcontext("kept"))

    monkeypatch.setattr(chat, "load_generator", load)
    monkeypatch.setattr(chat, "load_draft", load)
    assert run("chat", "out").exit_code == 0
    assert run("chat", "out", "--stop", "x", "--no-think", "--draft", "small", "--top-k", 3).exit_code == 0
    names = ("stop", "enable_thinking", "conversation", "speculate", "top_k")
    assert [tuple(one[name] for name in names) for one in seen] == [
        (None, None, "kept", None, None),
        (("x",), False, "kept", None, 3),
    ]
    assert "draft" not in seen[0]
    assert seen[1]["draft"].name == "small"
