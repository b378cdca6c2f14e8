"""Bodies of requests: JSON in a form."""

import json
from typing import NoReturn

from starlette.requests import Request

from ..errors import ApiError
from ..forms import AnyBody, checked


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


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
