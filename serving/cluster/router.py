"""Ray Serve's router that keeps conversations, and prompts that begin alike, on the replica that has read them."""

# pyright: reportMissingImports=false

import random
from collections.abc import Mapping
from typing import Any

from ...extras import ray_extra
from .choice import Seen, choose

with ray_extra():
    from ray.serve.request_router import (
        PendingRequest,
        ReplicaID,
        ReplicaResult,  # pyright: ignore[reportPrivateImportUsage]
        RequestRouter,
        RunningReplica,
    )


class PrefixRouter(RequestRouter):
    """Chooses replicas by the ``links`` of a request; power of two choices where no replica knows any of them.

    What a router has not routed itself it learns from the replicas, which report the links that they have read: so
    several gateways agree, and a new one begins with what is known.
    """

    def initialize_state(self, *, imbalance: int = 4) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Set how many more requests than the least busy replica a replica may have to be chosen for its cache."""
        self._imbalance = imbalance
        self._seen: Seen[ReplicaID] = Seen()
        self._chance = random.Random()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return ranks of replicas for a request."""
        if not candidate_replicas:
            return []
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True  # wait before the next try where all refuse
        replicas = {replica.replica_id: replica for replica in candidate_replicas}
        loads = {one: self.replica_queue_len_cache.get(one) or 0 for one in replicas}
        ranks = choose(_links(pending_request), loads, self._seen, self._imbalance, self._chance)
        return [[replicas[one] for one in rank] for rank in ranks]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: ReplicaResult) -> None:
        """Remember what the replica reads now."""
        self._seen.add(reversed(_links(pending_request)), replica_id)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Forget replicas that have ended, and learn what the others have read."""
        super().update_replicas(replicas)
        self._seen.keep(replica.replica_id for replica in replicas)
        for replica in replicas:
            stats: Mapping[str, Any] = replica.routing_stats
            self._seen.add(stats.get("links", ()), replica.replica_id)


def _links(request: PendingRequest | None) -> tuple[int, ...]:
    """Return the links that a gateway sends with a request, beside its call."""
    links: tuple[int, ...] = () if request is None else request.kwargs.get("links", ())
    return links
