"""Errors in OpenAI's form: ``{"error": {"message", "type", "param", "code"}}`` with an HTTP status."""

import logging
from typing import Any

from starlette.responses import JSONResponse

from ..errors import ContextLengthError, IntaglioError, PromptError, UnsupportedError, UsageError

log = logging.getLogger(__name__)


class ApiError(Exception):
    """An answer to a request that cannot be served.

    Args:
        param: the parameter that is wrong, as ``messages[0].content``; None where it is not one parameter.
        code: a name for programs, such as ``model_not_found``.
        retry_after: seconds after which the client should try again.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code
        self.retry_after = retry_after

    def as_json(self) -> dict[str, Any]:
        """Return the body."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """Return the response."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return JSONResponse(self.as_json(), self.status, headers)


def refused(error: IntaglioError, param: str | None = None) -> ApiError:
    """Return the answer to a request that the runtime refuses: 400 for what the client gave, 500 for anything else.

    The other errors name files of this machine, which are for the log.
    """
    if isinstance(error, ContextLengthError):
        return ApiError(str(error), param=param, code="context_length_exceeded")
    if isinstance(error, PromptError | UsageError | UnsupportedError):
        return ApiError(str(error), param=param)
    log.error("a request failed: %s", error)
    return failed()


def failed() -> ApiError:
    """Return the answer to a request that failed through no fault of its own; it tells nothing about the server."""
    return ApiError("the server failed on this request; its log has the reason", status=500, kind="server_error")


def timed_out(model: str, seconds: float | None) -> ApiError:
    """Return the answer to a request whose time is over before its answer has begun."""
    limit = "" if seconds is None else f" of {seconds:g} seconds"
    return ApiError(
        f"{model} has not begun to answer within the server's limit{limit}; try again later, or ask for less",
        status=504,
        kind="timeout_error",
        code="request_timeout",
        retry_after=1,
    )


def no_memory(model: str, retry_after: int = 1) -> ApiError:
    """Return the answer to a request for which there is not enough memory now."""
    return ApiError(
        f"the server has not enough memory for this request to {model} now; try again later, or send a shorter prompt "
        "and ask for fewer tokens",
        status=503,
        kind="server_error",
        code="insufficient_memory",
        retry_after=retry_after,
    )


def shutting_down() -> ApiError:
    """Return the answer to a request that comes while the server ends, or that its end stops."""
    return ApiError(
        "the server is shutting down; send the request to another one, or again once it is back",
        status=503,
        kind="server_error",
        code="shutting_down",
        retry_after=5,
    )
