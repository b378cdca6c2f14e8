"""The names of calibration texts: ``default``, ``self``, and the paths of files."""

from collections.abc import Sequence
from pathlib import Path

DEFAULT = "default"
"""The text that comes with intaglio."""

SELF = "self"
"""Text that the model generates itself."""

Text = str | Path
"""``DEFAULT``, ``SELF``, or a file. A file of such a name is given as a Path, or as ``./default``."""


def named_texts(given: Text | Sequence[Text] | None) -> tuple[Text, ...]:
    """Return the texts that are given as one, several or none: names as they are, files as paths."""
    if given is None:
        return ()
    several = (given,) if isinstance(given, str | Path) else tuple(given)
    return tuple(one if one in (DEFAULT, SELF) else Path(one) for one in several)
