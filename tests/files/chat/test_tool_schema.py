"""Functions as tools: their schemas equal those of transformers, and errors say what a function lacks."""

import json
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from intaglio.errors import UsageError
from intaglio.files.chat.template import read_chat_format
from intaglio.files.chat.tool_schema import schema_of
from intaglio.tests.files.chat.conversations import (
    ASKED,
    CHECKPOINTS,
)


class Unit(Enum):
    CELSIUS = "c"
    KELVIN = "k"


def everything(
    city: str,
    days: int,
    exact: bool | None = None,
    where: list[float] | None = None,
    unit: Unit = Unit.CELSIUS,
    kind: Literal["rain", "sun", 3] = "rain",
    either: int | str = 0,
    both: str | list[int] = "",
    extra: dict[str, int] | None = None,
    pair: tuple[int, str] = (0, ""),
    colour: str = "red",
    anything: Any = None,
) -> list[str]:
    """The weather of a city.

    It has a second paragraph.

    Args:
        city: The city,
            over two lines: with a colon.
        days: How many
        exact: e
        where: w
        unit: u
        kind: k
        either: ei
        both: b
        extra: ex
        pair: p
        colour: The colour (choices: ["red", " blue "])
        anything: any

    Returns:
        One text a day.
    """
    return []


def bare() -> None:
    """Does nothing."""


@pytest.mark.parametrize("function", [everything, bare])
def test_a_functions_schema_equals_transformers(function: Callable[..., Any]) -> None:
    from transformers.utils.chat_template_utils import get_json_schema

    assert json.dumps(schema_of(function)) == json.dumps(get_json_schema(function))


def test_a_function_serves_as_a_tool() -> None:
    chat_format = read_chat_format(CHECKPOINTS / "tiny-qwen2")
    assert chat_format.render([ASKED], tools=[bare]) == chat_format.render([ASKED], tools=[schema_of(bare)])


def undocumented(a: int) -> int:
    return a


def unresolved(a: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
    pass


def untyped(a) -> int:  # type: ignore[no-untyped-def]
    """Adds.

    Args:
        a: one
    """
    return int(a)


def undescribed(a: int) -> int:
    """Adds."""
    return a


def odd(a: Path) -> None:
    """Opens.

    Args:
        a: one
    """


def badly_chosen(a: str) -> None:
    """Opens.

    Args:
        a: one (choices: red, blue)
    """


@pytest.mark.parametrize(
    ("function", "properties"),
    [(undocumented, {"a": {"type": "integer"}}), (undescribed, {"a": {"type": "integer"}})],
)
def test_a_function_without_descriptions_has_the_schema_of_its_signature(
    function: Callable[..., Any], properties: dict[str, Any]
) -> None:
    described = schema_of(function)["function"]
    assert described["name"] == function.__name__
    assert described["parameters"] == {"type": "object", "properties": properties, "required": ["a"]}
    assert isinstance(described["description"], str)


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        (untyped, "tool untyped: argument 'a' has no type hint; give one, or pass a JSON schema"),
        (unresolved, "tool unresolved: its type hints cannot be read (name 'Nowhere' is not defined); correct them"),
        (odd, "tool odd: argument 'a': the type Path has no unambiguous JSON schema; use str, int, "),
        (
            badly_chosen,
            "tool badly_chosen: argument 'a': its choices are not a JSON list: red, blue; write (choices: ",
        ),
        (3, "a tool is int; give a function, or a JSON schema as a dict"),
    ],
)
def test_a_tool_that_cannot_be_described(tool: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_chat_format(CHECKPOINTS / "tiny-qwen2").render([ASKED], tools=[tool])
    assert str(caught.value).startswith(message)
