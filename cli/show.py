"""The output of verbs: tables on a terminal, tab-separated lines in a pipe, JSON for programs.

What is printed may come from anyone: a model's text, labels, the id of an artifact, a template's error. On a terminal
its control characters are shown and do nothing; a pipe gets them as they are. ``protect_terminal`` does so for
whatever is written to standard output and standard error, also by libraries; ``echo`` and ``console`` add colours.
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

_ESCAPES = str.maketrans({"\n": "\\n", "\r": "\\r", "\t": "\\t", "\x1b": "\\e"})

# Unicode has pictures of the control characters up to U+001F and of DEL. Those from U+0080 to U+009F are short for
# escape and another character, and are shown as these two.
_PICTURES: dict[int, str] = {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)}
_PICTURES |= {0x7F: "\u2421"}
_PICTURES |= {code: "\u241b" + chr(code - 0x40) for code in range(0x80, 0xA0)}

_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}

LEAST_WIDTH = 20
"""Columns that a value has at least, however narrow the terminal is."""

_BAR_MOVES = re.compile(r"(?:\n|\x1b\[A)+")
"""What a progress bar of several lines writes to move between them."""


def printable(text: str) -> str:
    """Replace control characters, except tab and newline, by pictures: no text controls the terminal."""
    return text.translate(_PICTURES)


class TerminalStream:
    """A terminal whose control characters are replaced; all else is that of the stream it stands for.

    A carriage return at the start of a write is kept, and so are moves between lines that are a write of their own:
    progress bars of libraries need them.
    """

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def write(self, text: str) -> int:
        start = "\r" if text.startswith("\r") else ""
        self.raw.write(text if _BAR_MOVES.fullmatch(text) else start + printable(text[len(start) :]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)


def protect_terminal() -> None:
    """Replace control characters in all that this process writes to a terminal from now on."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and stream.isatty() and not isinstance(stream, TerminalStream):
            setattr(sys, name, TerminalStream(stream))


def echo(text: str = "", *, err: bool = False, nl: bool = True, **style: Any) -> None:
    """Print a text on standard output, or on standard error.

    Args:
        nl: end the line.
        style: as ``click.style`` takes it; a pipe gets no colours.
    """
    stream = sys.stderr if err else sys.stdout
    shown = printable(text) if stream.isatty() else text
    click.echo(click.style(shown, **style) if style else shown, file=_raw(stream), nl=nl)


def console(*, err: bool = False) -> "Console":
    """Return a console of rich for tables and bars, with its own styles; control characters of texts are replaced."""
    from rich.console import Console, RenderableType
    from rich.segment import Segment

    class SafeConsole(Console):
        def render(self, renderable: RenderableType, options: Any = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

    return SafeConsole(file=_raw(sys.stderr if err else sys.stdout), markup=False, highlight=False, emoji=False)


def print_json(value: Any) -> None:
    """Print one JSON document, indented."""
    echo(to_json(value, indent=2))


def to_json(value: Any, indent: int | None = None) -> str:
    """Return JSON with the characters that standard output can encode: all of them in UTF-8, else ASCII.

    For a terminal, control characters are written as JSON's escapes, which mean the same.
    """
    utf8 = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not utf8, indent=indent)
    return text.translate(_JSON_ESCAPES) if sys.stdout.isatty() else text


def print_rows(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows of equal length: an aligned table on a terminal, else tab-separated lines without the header.

    Floats have four decimals; newlines, tabs and escapes inside a text become ``\\n``, ``\\t``, ``\\e``.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        for row in cells:
            echo("\t".join(row))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, value in zip(header, rows[0] if rows else header, strict=True):
        table.add_column(name, justify="right" if isinstance(value, int | float) else "left")
    for row in cells:
        table.add_row(*map(printable, row))  # here, so that columns are as wide as what is shown
    console().print(table)


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print ``name  value`` lines with aligned values; a line with an empty name continues the one above.

    On a terminal, values are wrapped to its width.
    """
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        lines = _wrapped(value, width + 2) if sys.stdout.isatty() else [value]
        for index, line in enumerate(lines):
            echo(f"{'' if index else name:<{width}}  {line}".rstrip())


def _wrapped(value: str, indent: int) -> list[str]:
    """Return the lines of a value that is printed after so many columns; a word that is longer stays whole."""
    from rich.cells import cell_len

    available = max(console().width - indent, LEAST_WIDTH)
    lines = [""]
    for word in printable(value).split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and cell_len(joined) > available:
            lines.append(word)
        else:
            lines[-1] = joined
    return lines


def one_line(text: str) -> str:
    """Replace newlines, tabs and escapes by ``\\n``, ``\\t``, ``\\e``."""
    return text.translate(_ESCAPES)


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else one_line(str(value))


def _raw(stream: TextIO) -> TextIO:
    return stream.raw if isinstance(stream, TerminalStream) else stream
