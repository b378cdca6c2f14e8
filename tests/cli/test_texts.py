"""Texts from the command line, from standard input and from files."""

import io
import sys
from pathlib import Path

import pytest
from intaglio.cli.texts import read_text, read_text_or_file, read_texts
from intaglio.errors import UsageError


def give(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))


def test_texts_from_the_command_line_are_taken_as_they_are() -> None:
    assert read_texts(("one", "", " two ", "-")) == ["one", "", " two ", "-"]


def test_a_lone_dash_reads_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, "erster\r\n\n  \nzweiter – ü\nlast".encode())
    assert read_texts(("-",)) == ["erster", "zweiter – ü", "last"]


def test_standard_input_without_text(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, b"\n \n")
    with pytest.raises(UsageError, match=r"^standard input has no text; give one text per line$"):
        read_texts(("-",))


def test_standard_input_that_is_not_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, b"abc\xff")
    with pytest.raises(UsageError, match=r"^standard input: byte 3 is not UTF-8; convert the text to UTF-8$"):
        read_text("-")


def test_a_prompt_keeps_its_inner_newlines_and_loses_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, b"a\nb\n\n")
    assert read_text("-") == "a\nb\n"
    assert read_text("as it is\n") == "as it is\n"


def test_a_context_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "context.txt"
    path.write_bytes(b"Ein Turm\r\nin Pisa\n")
    assert read_text_or_file(f"@{path}") == "Ein Turm\nin Pisa"
    assert read_text_or_file("the text itself") == "the text itself"


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_text_or_file(f"@{tmp_path}/none.txt")
    assert str(caught.value) == (
        f"{tmp_path}/none.txt: no such file; write @FILE for a file that exists, or give the text itself"
    )


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UsageError, match=r"latin\.txt: byte 3 is not UTF-8"):
        read_text_or_file(f"@{tmp_path}/latin.txt")
