"""Typed access to JSON objects: the kinds, and the message of each wrong value."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from intaglio.files.json_fields import INT64, JSONFields, is_integer, is_number, shown

VALUES: dict[str, Any] = {
    "whole": 3,
    "half": 0.5,
    "yes": True,
    "word": "a",
    "words": ["a", "b"],
    "ids": [1, 2],
    "object": {"x": 1},
    "objects": [{"x": 1}, {"x": "y"}],
    "null": None,
    "huge": 10**40,
    "infinite": math.inf,
    "long": "x" * 1000,
}


def fields() -> JSONFields:
    return JSONFields(VALUES, "f.json")


def test_values_of_their_kind_are_returned() -> None:
    found = fields()
    assert found.integer("whole", least=3, most=3) == 3
    assert (found.number("whole"), found.number("half")) == (3, 0.5)
    assert found.boolean("yes") is True
    assert found.text("word") == "a"
    assert (found.texts("word"), found.texts("words")) == (["a"], ["a", "b"])
    assert (found.integers("whole"), found.integers("ids")) == ([3], [1, 2])
    inner = found.fields("object")
    assert inner is not None
    assert inner.integer("x") == 1
    listed = found.list_of_fields("objects")
    assert listed is not None
    assert listed[1].text("x") == "y"


@pytest.mark.parametrize("key", ["null", "absent"])
def test_absent_and_null_are_none(key: str) -> None:
    found = fields()
    methods = ("integer", "integers", "number", "boolean", "text", "texts", "fields", "list_of_fields", "get")
    assert [getattr(found, method)(key) for method in methods] == [None] * len(methods)
    assert key not in found
    assert found.get(key, 7) == 7


WRONG: dict[str, tuple[Callable[[JSONFields], object], str]] = {
    "no whole number": (lambda f: f.integer("half"), "half is 0.5, expected a whole number"),
    "true": (lambda f: f.integer("yes"), "yes is True, expected a whole number"),
    "too small": (lambda f: f.integer("whole", least=4), "whole is 3, expected a whole number of at least 4"),
    "too large": (lambda f: f.integer("whole", most=2), "whole is 3, expected a whole number of at most 2"),
    "outside": (lambda f: f.integer("whole", least=0, most=2), "whole is 3, expected a whole number from 0 to 2"),
    "huge": (lambda f: f.integer("huge"), f"huge is {10**40}, expected a whole number"),
    "in a list": (lambda f: f.integers("words"), "words is ['a', 'b'], expected a whole number, or a list of them"),
    "infinite": (lambda f: f.number("infinite"), "infinite is inf, expected a number"),
    "no boolean": (lambda f: f.boolean("whole"), "whole is 3, expected true or false"),
    "no text": (lambda f: f.text("ids"), "ids is [1, 2], expected a text"),
    "no texts": (lambda f: f.texts("ids"), "ids is [1, 2], expected a text or a list of texts"),
    "no object": (lambda f: f.fields("words"), "words is ['a', 'b'], expected an object"),
    "no objects": (lambda f: f.list_of_fields("ids"), "ids is [1, 2], expected a list of objects"),
    "long": (lambda f: f.integer("long"), f"long is '{'x' * 56}..., expected a whole number"),
}


@pytest.mark.parametrize("case", WRONG)
def test_values_of_another_kind_are_refused_by_file_and_key(case: str) -> None:
    call, reason = WRONG[case]
    with pytest.raises(ValueError, match=r"^f\.json: ") as caught:
        call(fields())
    assert str(caught.value) == f"f.json: {reason}"


def test_errors_of_nested_objects_name_the_whole_path() -> None:
    listed = fields().list_of_fields("objects")
    assert listed is not None
    with pytest.raises(ValueError, match=r"^f\.json: objects\[1\]: x is 'y', expected a whole number$"):
        listed[1].integer("x")


def test_numbers() -> None:
    assert [is_integer(one) for one in (0, -INT64, INT64, INT64 + 1, True, 1.0, "1", None)] == [True] * 3 + [False] * 5
    assert [is_number(one) for one in (0, 1.5, 10**300, 10**309, math.nan, -math.inf, False, "1")] == [
        *[True] * 3,
        *[False] * 5,
    ]
    assert shown("x" * 60) == f"'{'x' * 56}..."
