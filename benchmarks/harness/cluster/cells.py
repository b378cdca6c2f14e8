"""The cells: a load each, and which arrangements it is for."""

from dataclasses import dataclass

from ....serving.load.measure import Texts
from ....serving.load.prompts import Messages, random_words
from ....serving.load.schedule import Load
from .arrangements import ONE, RANDOM, SERVER, TWO

TURNS = 6
HISTORY_WORDS, TURN_WORDS = 400, 40


@dataclass(frozen=True)
class Cell:
    """A load for some arrangements."""

    name: str
    load: Load
    texts: Texts
    arrangements: tuple[str, ...]


@dataclass(frozen=True)
class Conversations:
    """Conversations of several turns, each with a beginning of its own; their turns come interleaved.

    The answers in a conversation are random words, so that every server gets the same messages.
    """

    count: int

    def messages(self, number: int) -> Messages:
        """Return the messages of a request: those of a conversation up to one of its turns."""
        conversation, turn = number % self.count, number // self.count
        which = conversation + self.count * (turn // TURNS)  # after its last turn another one begins
        found: Messages = [{"role": "system", "content": random_words(HISTORY_WORDS, f"beginning {which}")}]
        for past in range(turn % TURNS):
            found.append({"role": "user", "content": random_words(TURN_WORDS, f"user {which} {past}")})
            found.append({"role": "assistant", "content": random_words(TURN_WORDS, f"answer {which} {past}")})
        return [*found, {"role": "user", "content": random_words(TURN_WORDS, f"user {which} {turn % TURNS}")}]


def cells(seconds: float, clients: int) -> list[Cell]:
    """Return the cells of a round.

    Args:
        seconds: how long each is measured.
        clients: of the loads that fill a server.
    """
    conversations = Conversations(clients)
    return [
        Cell("tiny", Load(seconds=seconds / 2, warmup=3), Texts(24, 0, 1), (SERVER, ONE)),
        Cell("one", Load(seconds=seconds, warmup=1), Texts(64, 0, 128), (SERVER, ONE)),
        Cell("many", Load(clients=clients, seconds=seconds, warmup=clients), Texts(128, 0, 64), (SERVER, ONE, TWO)),
        Cell(
            "conversations",
            Load(clients=clients // 2, requests=clients * TURNS, warmup=clients),
            Texts(new_tokens=16, prompts=conversations),
            (TWO, RANDOM),
        ),
    ]
