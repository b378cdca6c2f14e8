"""The names of an artifact's files in a repository of several precisions.

One precision is the default and has the names that it has in a folder of its own. The records of the others have their
precision in the name, as their manifests do; every other file is shared, or named by its precision already.
"""

from collections.abc import Mapping

from ..artifact import FileEntry, Precision
from ..devices.libraries import GENAI_CONFIG

BENCH = "bench.json"
RECORDS = ("parity.json", "parity.html", BENCH)
"""Files about one precision, of which every precision has its own."""

CONFIG = "config.json"
SETTINGS = (CONFIG, GENAI_CONFIG)
"""Shared files that name the graph; the default's are those of the repository."""


def stored_name(name: str, precision: Precision, default: Precision) -> str:
    """Return the name in the repository of a file with this name in a folder of its own."""
    return name if precision == default or name not in RECORDS else beside(name, precision)


def beside(name: str, precision: Precision) -> str:
    """Return the name of a file about one precision beside that of the default."""
    stem, _, ending = name.rpartition(".")
    return f"{stem}.{precision}.{ending}"


def own_name(name: str, precision: Precision) -> str:
    """Return the name in a folder of its own of a file with this name beside other precisions."""
    stem, dot, ending = name.rpartition(f".{precision}.")
    return f"{stem}.{ending}" if dot and f"{stem}.{ending}" in RECORDS else name


def by_own_name(files: Mapping[str, FileEntry], precision: Precision) -> dict[str, tuple[str, FileEntry]]:
    """Return the name and the entry of each file of a manifest by the name in a folder of its own."""
    return {own_name(name, precision): (name, entry) for name, entry in files.items()}
