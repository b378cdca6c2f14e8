"""Stop strings of any number and length: the matches, the cost of a character, and where the text ends."""

import random

import pytest
from intaglio.errors import UsageError
from intaglio.runtime.sequence.stopping import Automaton, StopStrings, stop_strings


def by_search(stops: list[str], pieces: list[str]) -> tuple[list[str], str | None]:
    """Return what ``StopStrings`` returns, by searching for each string separately."""
    held = ""
    shown: list[str] = []
    for place, piece in enumerate(pieces):
        text = held + piece
        hits = [(text.find(stop), -len(stop), stop) for stop in stops if stop in text]
        if hits:
            at, _, found = min(hits)
            return [*shown, text[:at], *[""] * (len(pieces) - place)], found
        keep = max(n for stop in stops for n in range(len(stop)) if text.endswith(stop[:n]))
        held = text[len(text) - keep :]
        shown.append(text[: len(text) - keep])
    return [*shown, held], None


def test_many_strings_are_found_as_each_by_itself() -> None:
    chance = random.Random(4)
    ends = 0
    for _ in range(3000):
        alphabet = chance.choice(["ab", "abc", "aé😀"])
        stops = ["".join(chance.choices(alphabet, k=chance.randrange(1, 7))) for _ in range(chance.randrange(1, 9))]
        pieces = ["".join(chance.choices(alphabet + "xy", k=chance.randrange(0, 5))) for _ in range(6)]
        watch = StopStrings(stops)
        given = [watch.push(piece) for piece in pieces]
        assert ([*given, watch.flush()], watch.found) == by_search(stops, pieces), (stops, pieces)
        ends += watch.found is not None
    assert 500 < ends < 2900


class Counting(Automaton):
    """An automaton that counts its character lookups."""

    lookups = 0

    def step(self, node: int, character: str) -> int:
        self.lookups += 1
        while node and character not in self._next[node]:
            self.lookups += 1
            node = self._shorter[node]
        return self._next[node].get(character, 0)


@pytest.mark.parametrize(
    "stops",
    [
        ["".join(random.Random(i).choices("abcdefgh", k=20)) for i in range(10_000)],
        ["a" * 100_000 + "b", "a" * 50_000 + "c"],
        ["ab" * 1_000 + str(i) for i in range(100)],
    ],
    ids=["ten thousand", "very long", "long and alike"],
)
def test_a_character_costs_the_same_however_many_strings_there_are(stops: list[str]) -> None:
    automaton = Counting(stops)
    text = "".join(random.Random(1).choices("ab", k=3_000)) + "a" * 3_000 + "ab" * 1_500
    for _ in range(2):
        automaton.lookups = node = 0
        for character in text:
            node = automaton.step(node, character)
        # Each look-up either takes a character or gives up one that was taken.
        assert automaton.lookups <= 2 * len(text)


def test_ten_thousand_stop_strings_in_a_stream() -> None:
    stops = [f"<stop {number}>" for number in range(10_000)]
    watch = StopStrings(stop_strings(stops))
    text = "a <b <stop <stop 77 <stop 9999"
    shown = "".join(map(watch.push, text))
    assert shown == "a <b <stop <stop 77 "
    assert watch.push("> and more") == ""
    assert watch.found == "<stop 9999>"
    assert watch.push("x") == watch.flush() == ""


def test_more_text_than_can_be_watched_for_is_refused() -> None:
    assert len(stop_strings(["a" * 125_000, "b" * 125_000])) == 2
    with pytest.raises(UsageError) as error:
        stop_strings(["a" * 25_001] * 10)
    assert str(error.value) == (
        "the 10 stop strings have 250,010 characters, and 250,000 are the most; give fewer, or shorter ones"
    )
