"""What chat templates may call: methods of text, lists and dicts, and jinja's filters, each with what it costs.

Sizes of arguments and results are charged by the caller of these rules; here is what could be large although its
arguments are small, or slow although its result is small. What is not listed is refused by name.
"""

import re
from collections.abc import Callable
from typing import Any

from .budget import Budget, TemplateLimitError

Rule = Callable[..., None]
"""``rule(budget, subject, *arguments, **named)`` charges before the call."""

WIDEST = 1000
PRECISION = 100
_DIGITS = re.compile(r"\d{4}|\*|\{[^{}]*\{")  # in a format: a width of four digits, or one that an argument says
_WORD = re.compile(r"\S+")


def nothing(_budget: Budget, *_: Any, **__: Any) -> None:
    """Costs no more than its arguments and its result."""


def through(budget: Budget, subject: Any, *_: Any) -> None:
    """Compares every item."""
    budget.charge(subject)


def copied(budget: Budget, subject: Any) -> None:
    budget.spend(len(subject))


def pad(budget: Budget, _text: Any, width: Any = 0, *_: Any, **named: Any) -> None:
    """center, ljust, rjust, zfill: as wide as the argument says; batch and slice, as long."""
    for count in (width, *named.values()):
        if isinstance(count, int):
            budget.spend(max(0, count) // 8, max(0, count))


def tabs(budget: Budget, text: str, tabsize: int = 8) -> None:
    budget.spend(characters=text.count("\t") * max(0, tabsize))


def replace(budget: Budget, text: Any, old: Any, new: Any, *_: Any) -> None:
    text, old = str(text), str(old)
    budget.spend(characters=(text.count(old) if old else len(text) + 1) * len(str(new)))


def search(budget: Budget, text: str, *arguments: Any) -> None:
    """Searching from the right compares every position with all of what is looked for; so does stripping."""
    looked_for = max((len(a) for a in arguments if isinstance(a, str)), default=0)
    budget.spend(characters=len(text) * (1 + looked_for // 8))


def split(budget: Budget, text: str, separator: Any = None, *_: Any, **__: Any) -> None:
    pieces = text.count(separator) if separator else sum(1 for _ in _WORD.finditer(text))
    search(budget, text, separator)
    budget.spend(pieces)


def lines(budget: Budget, text: str, *_: Any) -> None:
    budget.spend(sum(text.count(end) for end in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"))


def formatting(budget: Budget, text: Any, *arguments: Any, **named: Any) -> None:
    """``%`` and str.format: each field may hold every argument."""
    text = str(text)
    if _DIGITS.search(text):
        raise TemplateLimitError("it formats to a width of four digits or more, or to one that an argument says")
    fields = text.count("%") + text.count("{")
    before = budget.characters
    budget.charge((arguments, named))
    budget.spend(fields * 8, fields * (before - budget.characters + WIDEST))


def indent(budget: Budget, text: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    wide = len(width) if isinstance(width, str) else int(width)
    budget.spend(characters=(str(text).count("\n") + 1) * max(0, wide))


def rounding(_budget: Budget, _number: Any, precision: Any = 0, *_: Any, **__: Any) -> None:
    if isinstance(precision, int) and abs(precision) > PRECISION:
        raise TemplateLimitError(f"it rounds to {precision} digits")


def items(budget: Budget, value: Any, *arguments: Any, **__: Any) -> None:
    """Every item by itself: of text, its characters. A list is charged once more for each time it is gone through."""
    if isinstance(value, str):
        budget.spend(len(value), len(value))
    count = len(value) if hasattr(value, "__len__") else 1
    for _ in range(count.bit_length()):
        budget.charge(value)
    joined_by = sum(len(a) for a in arguments if isinstance(a, str))
    budget.spend(characters=count * joined_by)


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
    list: {"copy": copied, "count": through, "index": through},
    tuple: {"count": through, "index": through},
    dict: _all("get items keys values", nothing) | {"copy": copied},
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
"""Filters that go through all items at once; given an iterator, they get its items as a list."""

COMPARING = frozenset("in == eq equalto != ne > gt greaterthan ge >= < lt lessthan <= le divisibleby".split())
"""Tests whose cost is their arguments' size."""
