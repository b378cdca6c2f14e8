"""How the endpoints of the tasks without generation run a model and answer."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from ...artifact import Task
from ...errors import ContextLengthError, PromptError, UsageError
from ..errors import ApiError, refused
from ..http.streams import while_connected
from ..record import current
from ..server import server_of
from ..steps import Steps

Result = TypeVar("Result")


async def run_head(
    request: Request, name: str | None, tasks: Sequence[Task], steps: Callable[[Any], Steps[Result]], param: str
) -> tuple[str, Result]:
    """Run the steps of a call on the model's thread; return the model's name and what they return.

    Args:
        tasks: the tasks that the path is for.
        param: the parameter that has the texts, for errors about these.

    Raises:
        ApiError: the model is for another task; it refuses the texts; the queue is full.
        ClientLeftError: the client has left.
    """
    models = server_of(request).models
    served = models.find(name)
    if served.manifest.task not in tasks:
        raise ApiError(
            f"the model {served.name!r} is for {served.manifest.task}, and {request.url.path} for {', '.join(tasks)}",
            param="model",
        )
    try:
        work = models.run_steps(served.name, steps, current().client)
        return served.name, await while_connected(request, work)
    except ContextLengthError as error:
        # The library's remedy has another name here.
        remedy = str(error).replace("truncation=True", "truncate_prompt_tokens=-1")
        raise refused(ContextLengthError(remedy), param) from None
    except PromptError as error:
        raise refused(error, param) from None
    except UsageError as error:
        raise refused(error) from None


async def list_response(data: Sequence[dict[str, Any]], **more: Any) -> Response:
    """Return a list in OpenAI's form. It is written on a thread, one item at a time, so that the loop runs."""

    def content() -> bytes:
        items = ",".join(map(_dumps, data))
        return f'{{"object":"list","data":[{items}],{_dumps(more)[1:]}'.encode()

    return Response(await asyncio.to_thread(content), media_type="application/json")


async def array_response(data: Sequence[Any]) -> Response:
    """Return a list alone, written as ``list_response`` does."""
    content = await asyncio.to_thread(lambda: f"[{','.join(map(_dumps, data))}]".encode())
    return Response(content, media_type="application/json")


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
