"""Texts from the command line, from standard input and from files."""

import io
import sys
from pathlib import Path

import pytest
from intaglio.cli.texts import Texts, read_text, read_text_or_file, read_texts
from intaglio.errors import UsageError


def give(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))


def test_texts_from_the_command_line_are_taken_as_they_are() -> None:
    assert read_texts(("one", "", " two ", "-")).values == ["one", "", " two ", "-"]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"\xef\xbb\xbf\xef\xbb\xbfa\n\xef\xbb\xbfb"
    give(monkeypatch, data)
    assert read_text("-") == "\ufeffa\n\ufeffb"  # the first alone
    (tmp_path / "prompt.txt").write_bytes(data[3:])
    assert read_text_or_file(f"@{tmp_path / 'prompt.txt'}") == "a\n\ufeffb"


def test_a_lone_dash_reads_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, "erster\r\n\n  \nzweiter – ü\u2028a\x0bb\x85c\rd\nlast\r".encode())
    assert read_texts(("-",)) == Texts(["erster", "", "  ", "zweiter – ü\u2028a\x0bb\x85c\rd", "last"], are_lines=True)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_as_many_texts_as_lines(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    give(monkeypatch, f"\na\n\nb{end}".encode())
    texts = read_texts(("-",))
    assert texts.results(lambda given: [text.upper() for text in given], skip=True) == [None, "A", None, "B"]
    assert texts.results(lambda given: [len(text) for text in given], skip=False) == [0, 1, 0, 1]


def test_empty_lines_alone_run_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, b"\n\r\n")
    assert read_texts(("-",)).results(lambda given: [1 / len(given)], skip=True) == [None, None]


def test_standard_input_without_text(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, b"")
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
