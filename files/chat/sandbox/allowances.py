"""The methods and filters that chat templates may call, each with a rule for its cost.

The caller of a rule charges the sizes of arguments and results. A rule charges what may be large although the arguments
are small, or slow although the result is small. Methods and filters that are not listed are refused by name.
"""

import re
from collections.abc import Callable
from typing import Any

from .budget import Budget, TemplateLimitError

Rule = Callable[..., None]
"""``rule(budget, subject, *arguments, **named)`` charges the cost before the call."""

MAX_FIELD_WIDTH = 1000  # characters of a format's field
MAX_PRECISION = 100  # digits that a number is rounded to
_WIDE_FIELD = re.compile(r"\d{4}|\*|\{[^{}]*\{")  # in a format: a width of four digits, or taken from an argument
_WORD = re.compile(r"\S+")


def nothing(_budget: Budget, *_: Any, **__: Any) -> None:
    """Cost no more than the arguments and the result."""


def scan(budget: Budget, subject: Any, *_: Any) -> None:
    """Compare every item."""
    budget.charge(subject)


def copy(budget: Budget, subject: Any) -> None:
    """Copy the references to all items."""
    budget.spend(len(subject))


def pad(budget: Budget, _text: Any, width: Any = 0, *_: Any, **named: Any) -> None:
    """Pad text to the given width (center, ljust, rjust, zfill), or a list to the given length (batch, slice)."""
    for count in (width, *named.values()):
        if isinstance(count, int):
            budget.spend(max(0, count) // 8, max(0, count))


def tabs(budget: Budget, text: str, tabsize: int = 8) -> None:
    budget.spend(characters=text.count("\t") * max(0, tabsize))


def replace(budget: Budget, text: Any, old: Any, new: Any, *_: Any) -> None:
    text, old = str(text), str(old)
    budget.spend(characters=(text.count(old) if old else len(text) + 1) * len(str(new)))


def search(budget: Budget, text: str, *arguments: Any) -> None:
    """Search or strip text: from the right, every position is compared with the whole search string."""
    length = max((len(a) for a in arguments if isinstance(a, str)), default=0)
    budget.spend(characters=len(text) * (1 + length // 8))


def split(budget: Budget, text: str, separator: Any = None, *_: Any, **__: Any) -> None:
    parts = text.count(separator) if separator else sum(1 for _ in _WORD.finditer(text))
    search(budget, text, separator)
    budget.spend(parts)


def lines(budget: Budget, text: str, *_: Any) -> None:
    budget.spend(sum(text.count(end) for end in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"))


def formatting(budget: Budget, text: Any, *arguments: Any, **named: Any) -> None:
    """Format with ``%`` or str.format: each field may hold every argument."""
    text = str(text)
    if _WIDE_FIELD.search(text):
        raise TemplateLimitError("it formats a field of 1,000 characters or more, or one whose width is an argument")
    fields = text.count("%") + text.count("{")
    before = budget.characters
    budget.charge((arguments, named))
    budget.spend(fields * 8, fields * (before - budget.characters + MAX_FIELD_WIDTH))


def indent(budget: Budget, text: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    wide = len(width) if isinstance(width, str) else int(width)
    budget.spend(characters=(str(text).count("\n") + 1) * max(0, wide))


def rounding(_budget: Budget, _number: Any, precision: Any = 0, *_: Any, **__: Any) -> None:
    if isinstance(precision, int) and abs(precision) > MAX_PRECISION:
        raise TemplateLimitError(f"it rounds to {precision} digits, and {MAX_PRECISION} are allowed")


def items(budget: Budget, value: Any, *arguments: Any, **__: Any) -> None:
    """Process the items one by one (of text, its characters); sorting passes over a list log2(n) times."""
    if isinstance(value, str):
        budget.spend(len(value), len(value))
    count = len(value) if hasattr(value, "__len__") else 1
    for _ in range(count.bit_length()):
        budget.charge(value)
    separator = sum(len(a) for a in arguments if isinstance(a, str))
    budget.spend(characters=count * separator)


def _all(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


STR: dict[str, Rule] = (
    _all(
        "capitalize casefold endswith isalnum isalpha isascii isdecimal isdigit isidentifier islower isnumeric "
        "isprintable isspace istitle isupper lower removeprefix removesuffix startswith swapcase title upper",
        nothing,
    )
    | _all("count find index lstrip partition rfind rindex rpartition rstrip strip", search)
    | _all("center ljust rjust zfill", pad)
    | {"expandtabs": tabs, "replace": replace, "split": split, "rsplit": split, "splitlines": lines, "join": items}
    | {"format": formatting, "format_map": formatting}
)
METHODS: dict[type, dict[str, Rule]] = {
    str: STR,
    list: {"copy": copy, "count": scan, "index": scan},
    tuple: {"count": scan, "index": scan},
    dict: _all("get items keys values", nothing) | {"copy": copy},
    float: {"is_integer": nothing},
    int: {"bit_length": nothing},
}

FILTERS: dict[str, Rule] = (
    _all(
        "abs attr capitalize count d default e escape first float forceescape int items last length lower map reject "
        "rejectattr reverse safe select selectattr string title upper urlencode",
        nothing,
    )
    | _all("dictsort groupby join list max min sort unique", items)
    | _all("batch center slice", pad)
    | {"format": formatting, "indent": indent, "replace": replace, "round": rounding, "trim": search}
)
EAGER = frozenset("batch dictsort groupby join list max min slice sort unique".split())
"""Filters that consume all items; an iterator is converted to a list first."""

COMPARING = frozenset("in == eq equalto != ne > gt greaterthan ge >= < lt lessthan <= le divisibleby".split())
"""Tests whose cost is the size of their arguments."""
