"""Forms of requests: pydantic models, with errors that name the parameter as the client wrote it."""

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, ErrorDetails

from .errors import ApiError

Location = Sequence[int | str]

MOST_SHOWN = 60  # characters of a key in a message


def _fail_fast(schema: Any) -> None:
    if isinstance(schema, dict):
        if schema.get("type") == "list":
            schema["fail_fast"] = True
        for value in schema.values():
            _fail_fast(value)
    elif isinstance(schema, list | tuple):
        for value in schema:
            _fail_fast(value)


MOST_PARAMETERS = 200
"""The most parameters of one object: each unknown one is an error of its own."""


class Body(BaseModel):
    """The base of the bodies: unknown parameters are errors, types are not converted, and null is "not given"."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if len(values) > MOST_PARAMETERS:
            raise ValueError(f"{len(values):,} parameters, and there are no more than {MOST_PARAMETERS}")
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let every list end at its first wrong item: an error for each of 100,000 items would take seconds."""
        schema = handler(source)
        _fail_fast(schema)
        return schema


def few(most: int) -> BeforeValidator:
    """Return the validator of an object that may have many keys: refuses too many before it checks each."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > most:
            raise ValueError(f"it has {len(value):,} entries, and {most:,} are the most; give fewer")
        return value

    return BeforeValidator(check)


def unsupported(remedy: str) -> BeforeValidator:
    """Return the validator of a parameter of OpenAI's that cannot be honoured, whatever its value."""

    def refuse(value: Any) -> Any:
        raise ValueError(f"the server does not support it; {remedy}")

    return BeforeValidator(refuse)


AnyBody = TypeVar("AnyBody", bound=Body)


def checked(form: type[AnyBody], values: Any) -> AnyBody:
    """Return values in their form.

    Raises:
        ApiError: names the parameter that is wrong; where the values fit no member of a union, that of the member that
            they fit furthest.
    """
    if not isinstance(values, dict):
        raise ApiError("the body is not a JSON object")
    try:
        return form.model_validate(values)
    except ValidationError as error:
        raise _error(error.errors(include_url=False, include_context=False, include_input=False), values) from None


def _error(errors: Sequence[ErrorDetails], values: Any) -> ApiError:
    found = [(_keys(error["loc"], values), error) for error in errors]
    keys, first = max(found, key=lambda entry: len(entry[0]))  # the first of those that lead as far
    param = path(keys)
    if first["type"] == "extra_forbidden":
        return ApiError(f"the parameter {param} is not supported", param=param, code="unknown_parameter")
    reasons = dict.fromkeys(_reason(error) for other, error in found if other == keys)
    reason = ", or: ".join(reasons)
    return ApiError(f"{param}: {reason}" if param else reason, param=param or None)


def _reason(error: ErrorDetails) -> str:
    """Return pydantic's reason in JSON's words."""
    if error["type"] in ("model_type", "dict_type"):
        return "Input should be an object"
    return error["msg"].removeprefix("Value error, ")


def _keys(location: Location, values: Any) -> Location:
    """Return a location without the names of union members that pydantic puts in it."""
    keys: list[int | str] = []
    for number, part in enumerate(location):
        if _has(values, part):
            values = values[part]
        elif number < len(location) - 1 or not isinstance(values, dict):
            continue
        keys.append(part)
    return keys


def _has(values: Any, part: int | str) -> bool:
    """Check that a part of a location is a key of the values themselves."""
    return part in values if isinstance(values, dict) else isinstance(values, list) and isinstance(part, int)


def path(keys: Location) -> str:
    """Return the name of a parameter: ``messages[0].content``."""
    name = ""
    for part in keys:
        shown = part if isinstance(part, int) or len(part) <= MOST_SHOWN else f"{part[:MOST_SHOWN]}..."
        name += f"[{shown}]" if isinstance(shown, int) else f".{shown}" if name else shown
    return name
