"""Typed access to an object from a JSON file, whoever wrote it."""

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

INT32 = (1 << 31) - 1
INT64 = (1 << 63) - 1
MAX_SHOWN = 60  # characters of a wrong value in a message


class JSONFields:
    """The values of a JSON object by key; every error names the file and the key.

    Each method returns None for a key that is absent or null, and otherwise a value of the one kind that its name says.

        fields = JSONFields(read_object(path), str(path))
        top_k = fields.integer("top_k", least=0)

    Raises:
        ValueError: by each method, for a value of another kind or out of the range. ``bad`` makes it; a subclass may
            make another error.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = values
        self.where = where

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value as it is, and ``default`` for a key that is absent or null."""
        value = self.values.get(key)
        return default if value is None else value

    def integer(self, key: str, *, least: int = -INT64, most: int = INT64) -> int | None:
        """Return a whole number from ``least`` to ``most``."""
        value = self.values.get(key)
        if value is not None and not is_integer(value, least, most):
            raise self.bad(key, f"a whole number{_range(least, most)}")
        return value

    def integers(self, key: str, *, least: int = -INT64, most: int = INT64) -> list[int] | None:
        """Return a list of whole numbers; a single one is a list of one."""
        value = self.values.get(key)
        if value is None:
            return None
        values = value if isinstance(value, list) else [value]
        if not all(is_integer(one, least, most) for one in values):
            raise self.bad(key, f"a whole number{_range(least, most)}, or a list of them")
        return values

    def number(self, key: str) -> float | None:
        """Return a finite number."""
        value = self.values.get(key)
        if value is not None and not is_number(value):
            raise self.bad(key, "a number")
        return value

    def boolean(self, key: str) -> bool | None:
        """Return true or false."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.bad(key, "true or false")
        return value

    def text(self, key: str) -> str | None:
        """Return a text."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise self.bad(key, "a text")
        return value

    def texts(self, key: str) -> list[str] | None:
        """Return a list of texts; a single one is a list of one."""
        value = self.values.get(key)
        if value is None:
            return None
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str) for one in values):
            raise self.bad(key, "a text or a list of texts")
        return values

    def fields(self, key: str) -> "JSONFields | None":
        """Return an object, whose errors name this key too."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.bad(key, "an object")
        return JSONFields(value, f"{self.where}: {key}")

    def list_of_fields(self, key: str) -> "list[JSONFields] | None":
        """Return a list of objects, whose errors name this key and their position."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.bad(key, "a list of objects")
        return [JSONFields(one, f"{self.where}: {key}[{index}]") for index, one in enumerate(value)]

    def bad(self, key: str, expected: str) -> Exception:
        """Return the error of a key whose value is not what is expected, or of one that is missing."""
        value = self.values.get(key)
        found = "is missing" if value is None else f"is {shown(value)}"
        return ValueError(f"{self.where}: {key} {found}, expected {expected}")


def is_integer(value: Any, least: int = -INT64, most: int = INT64) -> TypeGuard[int]:
    """Return True for a whole number in a range; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: Any) -> TypeGuard[int | float]:
    """Return True for a number that a float can hold; NaN, infinities, true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def shown(value: object) -> str:
    """Return a value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def _range(least: int, most: int) -> str:
    if least == -INT64:
        return "" if most == INT64 else f" of at most {most:,}"
    return f" of at least {least:,}" if most == INT64 else f" from {least:,} to {most:,}"
