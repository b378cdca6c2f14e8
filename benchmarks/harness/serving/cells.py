"""The cells of the comparison: a load each, and how long it lasts."""

from dataclasses import dataclass

from ....serving.load.measure import Texts
from ....serving.load.schedule import Load

KINDS = ("clients", "prefix", "open", "long")
CLIENTS = (1, 4, 8, 16)
PREFIX_TOKENS = 1000
LONG_TOKENS = 8000
OTHERS = 4
CONTEXT, LONG_CONTEXT = 2048, 9216  # the most tokens of a request, with a margin for prompts of about so many tokens


@dataclass(frozen=True)
class Cell:
    """A load on each server; ``load`` is None for the long prompt that arrives among others."""

    name: str
    load: Load | None
    texts: Texts

    @property
    def kind(self) -> str:
        """Its name without the number of clients."""
        return self.name.partition("-")[0]


def closed(clients: int, seconds: float, prefix: int = 0) -> Cell:
    """Return so many clients with one request at a time each."""
    name = f"prefix-{clients}" if prefix else f"clients-{clients}"
    load = Load(clients=clients, seconds=seconds, warmup=clients, seed=clients)
    return Cell(name, load, Texts(128, prefix, 64))


def arrivals(rate: float, seconds: float) -> Cell:
    """Return requests at the same random times for every server."""
    return Cell("open", Load(rate=rate, seconds=seconds, warmup=2, seed=7), Texts(128, 0, 64))


LONG = Cell("long", None, Texts(32, 0, 512))


def cells(seconds: float, rate: float, *, quick: bool) -> list[Cell]:
    """Return the cells of one round, without the long prompt."""
    plain = [closed(clients, seconds) for clients in CLIENTS]
    shared = [closed(clients, seconds, PREFIX_TOKENS) for clients in (CLIENTS[2:3] if quick else CLIENTS)]
    return [*plain, *shared, arrivals(rate, 2 * seconds)]
