"""Short representations of results, for a prompt and for logs."""

from dataclasses import fields
from reprlib import Repr
from typing import Any

_LIMITS = Repr()
_LIMITS.maxtuple = _LIMITS.maxlist = _LIMITS.maxdict = 6
_LIMITS.maxstring = _LIMITS.maxother = 400


def short_repr(result: Any) -> str:
    """Return ``Class(field=value, ...)`` of a dataclass, with long tuples, dictionaries and texts abbreviated."""
    values = (f"{field.name}={_LIMITS.repr(getattr(result, field.name))}" for field in fields(result))
    return f"{type(result).__name__}({', '.join(values)})"
