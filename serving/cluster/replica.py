"""A replica: the application of the server in a process of its own, called without a socket."""

# pyright: reportMissingImports=false

import logging
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from starlette.types import Message

from ...errors import IntaglioError
from ...extras import ray_extra
from ..app import create_app
from ..engine.models import Models, named_models
from ..http.inprocess import Answer, Call, answer, messages
from .config import ClusterConfig

with ray_extra():
    from ray import serve

log = logging.getLogger(__name__)

REPORTED = 4096
"""How many of the links that it has read a replica reports to routers, the newest."""


class Replica:
    """One process with the models. Ray Serve makes it, asks for its health, and ends it."""

    async def __init__(self, config: ClusterConfig) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        """Load the models; the replica receives requests when it returns.

        Raises:
            IntaglioError: as ``load``.
        """
        self._models = Models(named_models(config.artifacts), config.settings, config.load_options())
        app = create_app(self._models, config.settings)
        self._lifespan = app.router.lifespan_context(app)
        await self._lifespan.__aenter__()
        async with self._models.holding():
            for name in list(config.artifacts)[: config.settings.max_loaded]:
                await self._models.model(name)
        self._app = app
        self._links: OrderedDict[int, None] = OrderedDict()

    async def answer(self, call: Call, *, links: Sequence[int]) -> AsyncGenerator[list[Message], None]:
        """Answer a request; yield ASGI's messages, together those that are there.

        Where an engine has ended, the process ends: gateways then send its requests to other replicas, which errors as
        answers would not let them do, and Ray Serve starts a new one at once.
        """
        self._remember(links)
        async with aclosing(messages(self._app, call)) as batches:
            async for batch in batches:
                if not self._models.healthy:
                    log.critical("the thread of an engine has ended; so does the replica")
                    logging.shutdown()
                    os._exit(1)
                yield batch

    async def whole_answer(self, call: Call) -> tuple[str, Answer]:
        """Return the replica's name and its answer, for requests that go to every replica."""
        return serve.get_replica_context().replica_id.unique_id, await answer(self._app, call)

    def check_health(self) -> None:
        """Raise where the replica cannot serve any more; Ray Serve then starts another one.

        Raises:
            IntaglioError: the thread of an engine has ended.
        """
        if not self._models.healthy:
            raise IntaglioError("the thread of an engine has ended; the replica must be started again")

    def record_routing_stats(self) -> Mapping[str, Any]:
        """Return what routers learn about the replica: the beginnings that it has read."""
        return {"links": list(self._links)}

    async def __del__(self) -> None:
        """End the application: requests have ended, or Ray Serve does not wait longer for them."""
        await self._lifespan.__aexit__(None, None, None)

    def _remember(self, links: Sequence[int]) -> None:
        for link in reversed(links):
            self._links[link] = None
            self._links.move_to_end(link)
        while len(self._links) > REPORTED:
            self._links.popitem(last=False)
