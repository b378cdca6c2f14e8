"""The reader of JSON: what it bounds, and that everything else is parsed as by ``json.loads``."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from intaglio.files import json_file
from intaglio.files.json_file import MAX_DEPTH, parse_json, read_json, read_object
from intaglio.files.regular_file import read_regular

ROOT = Path(__file__).parent.parent.parent

REFUSED: dict[str, tuple[str | bytes, str]] = {
    "no JSON": ("{", "Expecting property name enclosed in double quotes"),
    "empty": ("", "Expecting value"),
    "not UTF-8": (b'{"a": "\xff"}', "'utf-8' codec can't decode byte 0xff"),
    "a key twice": ('{"a": {"b": 1, "c": 2, "b": 1}}', "the key 'b' is given twice"),
    "lists too deep": ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested deeper than 100 levels"),
    "objects too deep": ('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), "nested deeper than 100 levels"),
    "deeper than the stack": ("[" * 1_000_000, "nested deeper than 100 levels"),
    "a long number": ("1" + "0" * 400, "a number has 401 digits"),
    "half of a character": ('["\\uD83D"]', r"a string has \\ud83d, which is half of a character"),
    "half of a character in a key": ('{"\\udc00": 1}', r"a string has \\udc00, which is half of a character"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_nothing_can_be_made_of_is_refused(case: str) -> None:
    text, reason = REFUSED[case]
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, 2.5, -3e4, true, false, null, "\\ud83d\\ude00 \\u0000"], "": {}}',
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        '{"model_max_length": 1000000000000000019884624838656}',
        '[NaN, Infinity, "NaN"]',
        "1e999",
        ' "text" ',
    ],
)
def test_everything_else_is_parsed_as_by_the_standard_library(text: str) -> None:
    for given in (text, text.encode()):
        assert repr(parse_json(given)) == repr(json.loads(text))


def test_control_characters_are_parsed_on_request_alone() -> None:
    with pytest.raises(json.JSONDecodeError, match="Invalid control character"):
        parse_json('"a\nb"')
    assert parse_json('"a\nb"', strict=False) == "a\nb"


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


NOT_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a folder": (Path.mkdir, "it is a folder, not a regular file"),
    "a named pipe": (pipe, "it is a named pipe, not a regular file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a regular file"),
    "a socket": (listening, "it is a socket, not a regular file"),
    "a link to nothing": (lambda path: path.symlink_to("nothing"), "it is a link to a file that does not exist"),
    "a link to itself": (lambda path: path.symlink_to(path), "Too many levels of symbolic links|Symlink loop"),
}


@pytest.mark.parametrize("kind", NOT_FILES)
def test_only_regular_files_are_opened(kind: str, tmp_path: Path) -> None:
    make, reason = NOT_FILES[kind]
    path = tmp_path / "a.json"
    make(path)
    with pytest.raises(ValueError, match=rf"a\.json cannot be read \(.*({reason})"):
        read_object(path)


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text('{"a": 1}', encoding="utf-8")
    (tmp_path / "config.json").symlink_to("blob")
    assert read_object(tmp_path / "config.json") == {"a": 1}


def test_a_missing_file_is_an_empty_object(tmp_path: Path) -> None:
    assert read_object(tmp_path / "config.json") == {}
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "config.json")


def test_a_value_that_is_no_object_is_refused_where_one_is_expected(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]", encoding="utf-8")
    assert read_json(tmp_path / "a.json") == [1]
    with pytest.raises(ValueError, match=r"a\.json: expected a JSON object"):
        read_object(tmp_path / "a.json")


def test_a_file_longer_than_its_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_file, "MAX_BYTES", 100)
    for name, size in (("config.json", 100), ("intaglio.json", 101), ("intaglio.int8.json", 101)):
        (tmp_path / name).write_text('"' + "x" * (size - 2) + '"', encoding="utf-8")
        assert len(read_json(tmp_path / name)) == size - 2
    (tmp_path / "config.json").write_text('"' + "x" * 99 + '"', encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.json cannot be read \(it is longer than the 100 bytes"):
        read_json(tmp_path / "config.json")


# Texts of models, of users' code and of schemas: no files.
OWN = {"runtime/chat/tool_call.py", "runtime/chat/tool_calls.py", "files/chat/tool_schema.py"}
OWN |= {"runtime/chat/call_grammar.py", "runtime/sequence/constraint.py", "files/json_file.py"}


def test_every_json_file_is_read_by_this_reader() -> None:
    rooms = ("cli", "exporter", "files", "models", "parity", "runtime")
    files = [*ROOT.glob("*.py"), *(file for room in rooms for file in (ROOT / room).rglob("*.py"))]
    assert len(files) > 200
    for file in files:
        if str(file.relative_to(ROOT)) not in OWN:
            text = file.read_text(encoding="utf-8")
            assert "json.load" not in text, file


def test_a_file_without_a_size_is_read_whole() -> None:
    path = Path("/proc/self/status")
    assert path.stat().st_size == 0
    assert read_regular(path, 1 << 20).startswith(b"Name:")
    with pytest.raises(ValueError, match=r"status cannot be read \(it is longer than the 100 bytes"):
        read_regular(path, 100)
