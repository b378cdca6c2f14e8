"""Sizes in bytes and times: written for people, and read from options."""

import re

import click

UNITS = {"": 1, "B": 1}
UNITS |= {f"{letter}B": 1000**power for power, letter in enumerate("KMG", start=1)}
UNITS |= {f"{letter}IB": 1024**power for power, letter in enumerate("KMG", start=1)}


def size(count: float) -> str:
    """Return a number of bytes in decimal units with three digits: ``512 B``, ``1.05 MB``, ``1.98 GB``."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 999.5:
            return f"{count:.3g} {unit}"
    return f"{count / 1000:,.2f} GB"


def duration(seconds: float) -> str:
    """Return a time with two digits or so: ``4 s``, ``3 min``, ``2.5 h``; ``under 1 s``."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def parse_size(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """Return the bytes of ``300MB``, ``1.2 GB`` or ``314572800``; units are decimal, ``MiB`` is binary.

    Raises:
        click.BadParameter: the value is not a size.
    """
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", value.strip())
    unit = UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None:
        raise click.BadParameter(f"{value!r} is not a size; write it like 300MB, 1.2GB or 314572800.")
    return int(float(found[1]) * unit)
