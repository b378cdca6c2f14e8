"""Text of tokens as a page can show it: what is invisible, or would disturb what is around it, becomes a mark."""

import unicodedata
from html import escape
from typing import NamedTuple

_NAMED = {"\n": "↵", "\t": "⇥", "\r": "␍"}
_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"  # Persian and emoji need them between letters
_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs")
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_HARMLESS = "\n\t" + _JOINERS
DOTTED_CIRCLE = "\N{DOTTED CIRCLE}"


class Piece(NamedTuple):
    """A run of text; ``mark`` tells that it stands for a character which cannot be seen."""

    text: str
    mark: bool


def token(text: str) -> list[Piece]:
    """A token with every blank visible: ``␣`` a space, ``↵`` a line break, ``U+200B`` what has no picture."""
    pieces = _pieces(text, keep="")
    if pieces and not pieces[0].mark and unicodedata.category(pieces[0].text[0]).startswith("M"):
        pieces[0] = Piece(DOTTED_CIRCLE + pieces[0].text, False)
    return pieces or [Piece("empty", True)]


def passage(text: str, *, last: int | None = None, breaks: bool = False) -> list[Piece]:
    """Running text: spaces stay, line breaks are marked (and kept, with ``breaks``).

    ``last`` keeps only so many characters of the end, after a ``…``.
    """
    cut = last is not None and len(text) > last
    pieces = _pieces(text[-last:] if cut and last else text, keep=" " + _JOINERS)
    if breaks:
        pieces = [Piece(p.text + "\n", True) if p == Piece("↵", True) else p for p in pieces]
    return [Piece("…", True), *pieces] if cut else pieces


def onward(text: str) -> list[Piece]:
    """Running text that goes on behind other: as a passage, but the blank that it begins with is visible."""
    return [*token(text[:1]), *passage(text[1:], breaks=True)]


def plain(text: str) -> str:
    """Any other text: what would be invisible or turn the line around stands as ``U+202E``."""
    return "".join(f"U+{ord(c):04X}" if c not in _HARMLESS and unicodedata.category(c) in _HIDDEN else c for c in text)


def escaped(text: str) -> str:
    """``plain``, as markup."""
    return escape(plain(text))


def _pieces(text: str, keep: str) -> list[Piece]:
    pieces: list[Piece] = []
    for character in text:
        piece = Piece(character, False)
        if character not in keep and unicodedata.category(character) in _INVISIBLE:
            piece = Piece("␣" if character == " " else _NAMED.get(character, f"U+{ord(character):04X}"), True)
        if pieces and not piece.mark and not pieces[-1].mark:
            piece = Piece(pieces.pop().text + piece.text, False)
        pieces.append(piece)
    return pieces
