"""Which replica should receive a request: one that has read its beginning, if it is not much busier than the others."""

import random
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

Replica = TypeVar("Replica", bound=Hashable)


class Seen(Generic[Replica]):
    """Which replicas have read which beginnings; the least recently used beginnings are forgotten.

    Args:
        size: how many beginnings are remembered.
    """

    def __init__(self, size: int = 65_536) -> None:
        self._size = size
        self._holders: OrderedDict[int, set[Replica]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._holders)

    def add(self, links: Iterable[int], replica: Replica) -> None:
        """Remember that a replica reads these beginnings."""
        for link in links:
            self._holders.setdefault(link, set()).add(replica)
            self._holders.move_to_end(link)
        while len(self._holders) > self._size:
            self._holders.popitem(last=False)

    def keep(self, replicas: Iterable[Replica]) -> None:
        """Forget the replicas that are not among these."""
        alive = set(replicas)
        for link, holders in list(self._holders.items()):
            holders &= alive
            if not holders:
                del self._holders[link]

    def holders(self, link: int) -> frozenset[Replica]:
        """Return the replicas that have read a beginning."""
        return frozenset(self._holders.get(link, ()))


def choose(
    links: Sequence[int],
    loads: Mapping[Replica, int],
    seen: Seen[Replica],
    imbalance: int,
    chance: random.Random,
) -> list[list[Replica]]:
    """Return ranks of replicas: the least busy one of the first rank receives the request if it accepts, and so on.

    Args:
        links: the request's beginnings, the longest first, as ``prefixes.links``.
        loads: how many requests each replica has; at least one replica.
        imbalance: a replica that has so many more requests than the least busy one is not chosen for what it has read.
    """
    lowest = min(loads.values())
    for link in links:
        near = [replica for replica in loads if replica in seen.holders(link) and loads[replica] - lowest < imbalance]
        if near:
            rest = [replica for replica in loads if replica not in near]
            return [near, *two_of(rest, chance)]
    return two_of(list(loads), chance)


def two_of(replicas: Sequence[Replica], chance: random.Random) -> list[list[Replica]]:
    """Return the ranks of the power of two choices: two at random, and the others where neither accepts."""
    first = chance.sample(list(replicas), min(2, len(replicas)))
    rest = [replica for replica in replicas if replica not in first]
    return [rank for rank in (first, rest) if rank]
