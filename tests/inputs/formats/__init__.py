"""The cases of each format, one module for each; its ``CASES`` are what docs/inputs.md has rows for."""

import importlib
import pkgutil

from ..case import Case


def cases() -> tuple[Case, ...]:
    """Return the cases of every format, those of a format together."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(case for name in names for case in importlib.import_module(f"{__name__}.{name}").CASES)
