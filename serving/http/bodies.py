"""Bodies of requests: JSON, checked by a pydantic model, with errors that name the parameter."""

import json
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from ..errors import ApiError


class Body(BaseModel):
    """The base of the bodies: unknown parameters are errors, and types are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=False)


AnyBody = TypeVar("AnyBody", bound=Body)


async def read_body(request: Request, form: type[AnyBody]) -> AnyBody:
    """Read a request's body.

    Raises:
        ApiError: it is not JSON, or not of this form.
    """
    raw = await request.body()
    try:
        values = json.loads(raw, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ApiError(f"the body is not JSON: {error}") from None
    return checked(form, values)


def checked(form: type[AnyBody], values: Any) -> AnyBody:
    """Return values in their form.

    Raises:
        ApiError: names the first parameter that is wrong.
    """
    if not isinstance(values, dict):
        raise ApiError("the body is not a JSON object")
    try:
        return form.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = _path(first["loc"])
        if first["type"] == "extra_forbidden":
            raise ApiError(f"the parameter {param} is not supported", param=param, code="unknown_parameter") from None
        raise ApiError(f"{param}: {first['msg']}", param=param) from None


def _path(location: tuple[int | str, ...]) -> str:
    """Return the name of a parameter: ``messages[0].content``."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
