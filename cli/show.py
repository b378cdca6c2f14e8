"""The output of verbs: tables on a terminal, tab-separated lines in a pipe, JSON for programs."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

_ESCAPES = str.maketrans({"\n": "\\n", "\r": "\\r", "\t": "\\t", "\x1b": "\\e"})


def print_json(value: Any) -> None:
    """Print one JSON document, indented."""
    click.echo(to_json(value, indent=2))


def to_json(value: Any, indent: int | None = None) -> str:
    """Return JSON with the characters that standard output can encode: all of them in UTF-8, else ASCII."""
    utf8 = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    return json.dumps(value, ensure_ascii=not utf8, indent=indent)


def print_rows(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows of equal length: an aligned table on a terminal, else tab-separated lines without the header.

    Floats have four decimals; newlines, tabs and escapes inside a text become ``\\n``, ``\\t``, ``\\e``.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        for row in cells:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, value in zip(header, rows[0] if rows else header, strict=True):
        table.add_column(name, justify="right" if isinstance(value, int | float) else "left")
    for row in cells:
        table.add_row(*row)
    Console(markup=False, highlight=False, emoji=False).print(table)


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print ``name  value`` lines with aligned values; a line with an empty name continues the one above."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        click.echo(f"{name:<{width}}  {value}".rstrip())


def one_line(text: str) -> str:
    """Replace newlines, tabs and escapes by ``\\n``, ``\\t``, ``\\e``."""
    return text.translate(_ESCAPES)


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else one_line(str(value))
