"""Bodies of requests: JSON in a form."""

import json
import re
from typing import Any

from starlette.requests import Request

from ...files.json_file import parse_json
from ..errors import ApiError
from ..forms import AnyBody, checked

MAX_VALUES = 200_000
"""Values of a body: elements of lists and members of objects. Millions of empty lists would take seconds to parse."""

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)


async def read_body(request: Request, form: type[AnyBody]) -> AnyBody:
    """Read a request's body.

    Raises:
        ApiError: it is not JSON, has too many values, or is not of this form.
    """
    return checked(form, await read_json(request))


async def read_json(request: Request) -> Any:
    """Read a request's body as JSON, for a path whose bodies have several forms. Errors as ``read_body``."""
    check_media_type(request)
    return parse(await request.body())


def check_media_type(request: Request) -> None:
    """Check that a body says that it is JSON.

    A web page of another origin can send other types without asking the server first (CORS), and also none.

    Raises:
        ApiError: 415.
    """
    given = request.headers.get("content-type", "")
    kind, _, parameters = given.lower().partition(";")
    if kind.strip() != "application/json" or parameters.strip().replace('"', "") not in ("", "charset=utf-8"):
        shown = repr(given[:100]) if given else "missing"
        raise ApiError(f"the header Content-Type is {shown}; send application/json", status=415)
    if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise ApiError(f"the header Content-Encoding is {encoding[:100]!r}; send the body as it is", status=415)


def parse(raw: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ApiError: it is not JSON as ``parse_json`` reads it, or has more than MAX_VALUES values.
    """
    # A comma for each value but the first of its list or object. Those in strings are counted only where it matters.
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MAX_VALUES:
        rest = _STRING.sub(b"", raw)
        if (count := rest.count(b",") + rest.count(b"[") + rest.count(b"{")) > MAX_VALUES:
            raise ApiError(f"the body has about {count:,} values and may have {MAX_VALUES:,}; send several requests")
    try:
        return parse_json(raw, constants=False)
    except UnicodeDecodeError as error:
        raise ApiError(f"the body is not UTF-8: the byte at {error.start:,} is wrong") from None
    except json.JSONDecodeError as error:
        raise ApiError(f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError as error:
        raise ApiError(f"the body cannot be read: {error}") from None
