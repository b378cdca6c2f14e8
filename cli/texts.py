"""Read a verb's texts: from the command line, standard input (``-``), or a file (``@FILE``)."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..errors import UsageError

Result = TypeVar("Result")

BYTE_ORDER_MARK = "\ufeff"
"""Some editors begin a file with it; it is no part of the text."""


@dataclass(frozen=True)
class Texts:
    """The texts of a verb; ``are_lines`` where they are the lines of standard input, which may be empty."""

    values: list[str]
    are_lines: bool = False

    def results(self, run: Callable[[list[str]], Iterable[Result]], *, skip: bool) -> list[Result | None]:
        """Run all texts at once; return the result of each, None for an empty line.

        Args:
            skip: leave empty lines out, because the model cannot take them.
        """
        if not (skip and self.are_lines):
            return list(run(self.values))
        given = [text for text in self.values if text]
        found = iter(run(given) if given else ())
        return [next(found) if text else None for text in self.values]


def read_texts(values: Sequence[str]) -> Texts:
    """Return the texts; a single ``-`` means the lines of standard input, all of them.

    Lines end at ``\\n`` or ``\\r\\n``, not at the other characters that Unicode breaks lines at.

    Raises:
        UsageError: standard input is empty, or is not UTF-8.
    """
    if list(values) != ["-"]:
        return Texts(list(values))
    lines = _stdin().split("\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise UsageError("standard input has no text; give one text per line")
    return Texts([*lines[:-1], lines[-1].removesuffix("\r")], are_lines=True)


def read_text(value: str) -> str:
    """Return the text; ``-`` means standard input without its final newline.

    Raises:
        UsageError: standard input is not UTF-8.
    """
    return _stdin().removesuffix("\n") if value == "-" else value


def read_text_or_file(value: str) -> str:
    """Return the text as ``read_text`` does; ``@FILE`` means the content of a file, without its final newline.

    Raises:
        UsageError: the file does not exist or is not UTF-8.
    """
    if not value.startswith("@"):
        return read_text(value)
    path = Path(value[1:])
    if not path.is_file():
        raise UsageError(f"{path}: no such file; write @FILE for a file that exists, or give the text itself")
    return _decode(path.read_bytes(), str(path)).removesuffix("\n")


def read_file(name: str) -> str:
    """Return the content of a file; ``-`` means standard input.

    Raises:
        UsageError: the file does not exist or is not UTF-8.
    """
    if name == "-":
        return _stdin()
    if not Path(name).is_file():
        raise UsageError(f"{name}: no such file; give one that exists, or - for standard input")
    return _decode(Path(name).read_bytes(), name)


def _stdin() -> str:
    return _decode(sys.stdin.buffer.read(), "standard input")


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8").removeprefix(BYTE_ORDER_MARK).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: byte {error.start} is not UTF-8; convert the text to UTF-8") from None
