"""Text made visible: marks replace characters that are invisible or change the direction of the text around them."""

import unicodedata
from html import escape
from typing import NamedTuple

_NAMED = {"\n": "↵", "\t": "⇥", "\r": "␍"}
_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"  # Persian and emoji need them between letters
_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs")
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_HARMLESS = "\n\t" + _JOINERS
DOTTED_CIRCLE = "\N{DOTTED CIRCLE}"


class TextRun(NamedTuple):
    """A run of text; ``mark`` is true if it replaces an invisible character."""

    text: str
    mark: bool


def token(text: str) -> list[TextRun]:
    """Return a token with visible blanks: ``␣`` for a space, ``↵`` for a line break, ``U+200B`` for others."""
    pieces = _pieces(text, keep="")
    if pieces and not pieces[0].mark and unicodedata.category(pieces[0].text[0]).startswith("M"):
        pieces[0] = TextRun(DOTTED_CIRCLE + pieces[0].text, False)
    return pieces or [TextRun("empty", True)]


def passage(text: str, *, last: int | None = None, breaks: bool = False) -> list[TextRun]:
    """Return running text: spaces are kept, line breaks are marked (and kept as well, with ``breaks``).

    ``last`` keeps only that many characters of the end, after a ``…``.
    """
    cut = last is not None and len(text) > last
    pieces = _pieces(text[-last:] if cut and last else text, keep=" " + _JOINERS)
    if breaks:
        pieces = [TextRun(p.text + "\n", True) if p == TextRun("↵", True) else p for p in pieces]
    return [TextRun("…", True), *pieces] if cut else pieces


def onward(text: str) -> list[TextRun]:
    """Return running text that continues another: like ``passage``, but a blank at its beginning is visible."""
    return [*token(text[:1]), *passage(text[1:], breaks=True)]


def plain(text: str) -> str:
    """Return text with characters that are invisible or change its direction written as ``U+202E``."""
    return "".join(f"U+{ord(c):04X}" if c not in _HARMLESS and unicodedata.category(c) in _HIDDEN else c for c in text)


def escaped(text: str) -> str:
    """Return ``plain`` text, escaped for HTML."""
    return escape(plain(text))


def _pieces(text: str, keep: str) -> list[TextRun]:
    pieces: list[TextRun] = []
    for character in text:
        piece = TextRun(character, False)
        if character not in keep and unicodedata.category(character) in _INVISIBLE:
            piece = TextRun("␣" if character == " " else _NAMED.get(character, f"U+{ord(character):04X}"), True)
        if pieces and not piece.mark and not pieces[-1].mark:
            piece = TextRun(pieces.pop().text + piece.text, False)
        pieces.append(piece)
    return pieces
