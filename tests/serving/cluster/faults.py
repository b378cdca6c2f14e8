"""A replica that can be slow, and whose engine can be ended: what tests do to it."""

import os
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from intaglio.serving.cluster.config import ClusterConfig
from intaglio.serving.cluster.replica import Replica
from intaglio.serving.http.inprocess import Call
from intaglio.tests.serving.cluster.cluster_process import PACE


class FaultyReplica(Replica):
    """A replica whose models are slow where ``PACE`` says so; a request to ``/break`` ends its engines."""

    async def __init__(self, config: ClusterConfig) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        await super().__init__(config)
        self._broken = False
        for engine in self._models.engines.values():
            self._slow(engine._scheduler, float(os.environ.get(PACE, "0")))

    def _slow(self, scheduler: Any, pace: float) -> None:
        step = scheduler.step

        def slow_step() -> Any:
            if self._broken:
                raise SystemExit  # as a thread that is killed: no exception handler sees it
            time.sleep(pace)
            return step()

        scheduler.step = slow_step

    async def answer(self, call: Call, *, links: Sequence[int]) -> AsyncGenerator[list[Any], None]:
        if call.path == "/break":
            self._broken = True
        async for batch in super().answer(call, links=links):
            yield batch
