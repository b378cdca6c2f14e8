"""Guesses from the text and from earlier texts: which tokens, how likely, and within which memory."""

import random
from pathlib import Path
from typing import Any

import pytest
from intaglio.errors import UsageError
from intaglio.runtime import Generation, Scheduler
from intaglio.runtime.generation.guesses.suffix_lookup import EarlierTexts, SuffixLookup
from intaglio.tests.runtime import fakes
from intaglio.tests.runtime.fakes import text_generator


def guessed(lookup: SuffixLookup, history: list[int], most: int = 20) -> list[int]:
    """Return the guesses after a text, each assumed to be right."""
    proposal = lookup.begin(history)
    tokens: list[int] = []
    while len(tokens) < most and (found := proposal.guess()) is not None:
        assert 0 < found[1] < 1
        tokens.append(found[0])
        proposal.take(found[0])
    return tokens


def test_the_longest_context_decides_then_the_most_frequent_token() -> None:
    text = [1, 2, 3, 4, 5, 60, 9, 3, 4, 5, 70, 9, 3, 4, 5, 70, 8, 1, 2, 3, 4, 5]
    assert guessed(SuffixLookup(), text, 2) == [60, 9]
    assert guessed(SuffixLookup(), [*text, 0, 3, 4, 5], 2) == [70, 8]
    assert guessed(SuffixLookup(), [1, 2, 3]) == []
    assert guessed(SuffixLookup(), [7, 7, 7, 7], 3) == [7, 7, 7]


def test_new_tokens_are_known_from_call_to_call() -> None:
    lookup, chance = SuffixLookup(), random.Random(1)
    history: list[int] = []
    for _ in range(80):
        history += [chance.randrange(4) for _ in range(chance.randrange(1, 4))]
        assert guessed(lookup, history, 5) == guessed(SuffixLookup(), history, 5)


def test_likelihood_is_learned_from_the_text() -> None:
    """After a hundred wrong guesses of a kind the next is unlikely; after a hundred right ones it is likely."""

    def likelihood(text: list[int]) -> float:
        lookup = SuffixLookup()
        lookup.begin(text[:3])
        found = lookup.begin(text).guess()
        assert found is not None
        return found[1]

    # Each number comes twice, and after the second time another token follows.
    wrong = [token for n in range(100) for token in (n, 1000 + n)] + [
        token for n in range(100) for token in (n, 2000 + n)
    ]
    assert likelihood([*wrong, 1000]) < 0.1
    right = list(range(300)) * 2
    assert likelihood(right) > 0.95


def test_earlier_texts_are_guessed_from_their_first_token_on() -> None:
    earlier = EarlierTexts(1000)
    earlier.add([90, 91, 92, 93, 94], [1, 2, 3, 4, 5, 6])
    lookup = SuffixLookup(earlier)
    assert guessed(lookup, [50, 91, 92, 93, 94]) == [1, 2, 3, 4, 5, 6]
    assert guessed(lookup, [50, 91, 92, 93, 94, 1, 2]) == [3, 4, 5, 6]
    assert guessed(lookup, [50, 91, 92, 93, 94, 1, 2, 8, 4, 5]) == [6]
    earlier.add([90], [4, 5, 7])
    assert guessed(lookup, [50, 91, 92, 93, 94, 1, 2, 8, 4, 5, 4, 5])[:1] == [4]  # of equally long ones its own
    assert guessed(SuffixLookup(), [50, 91, 92, 93, 94]) == []


@pytest.mark.parametrize("most", [2, 40, 1000])
def test_memory_of_earlier_texts_is_bounded(most: int) -> None:
    chance = random.Random(0)
    earlier = EarlierTexts(most)
    lookup, history = SuffixLookup(earlier), [1, 2, 3]
    repeated = list(range(15))
    for number in range(300):
        earlier.add([1, 2], [chance.randrange(100) for _ in range(chance.randrange(1, 90))])
        if number % 3 == 0:
            earlier.add([1, 2], repeated)
        assert sum(map(len, earlier.automata)) <= most
        history.append(chance.randrange(100))
        for token in guessed(lookup, history):  # the matches of dropped texts are not followed
            assert token >= 0
    assert earlier.turned > 2
    if most == 1000:
        assert guessed(SuffixLookup(earlier), [77, 0, 1, 2], 12) == repeated[3:]


def run(scheduler: Scheduler, prompt: list[int], options: dict[str, Any]) -> tuple[Generation, int]:
    number = scheduler.submit(prompt, **options)
    found, steps = None, 0
    while scheduler.busy:
        steps += 1
        for event in scheduler.step():
            if event.request == number and event.result is not None:
                found = event.result
    assert found is not None
    return found, steps


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_request_that_comes_again_takes_fewer_steps(tmp_path: Path, temperature: float) -> None:
    lm = text_generator(fakes.language_model(tmp_path / "lm"))
    options: dict[str, Any] = {"max_new_tokens": 60, "eos_token_id": [], "temperature": temperature, "seed": 3}
    plain = lm.generate([5, 9, 7], speculate=False, **options)
    with lm.scheduler(slots=2, max_length=200) as scheduler:
        first, many = run(scheduler, [5, 9, 7], options)
        again, few = run(scheduler, [5, 9, 7], options)
        assert first == again == plain
        assert few < min(many, 20)
    with lm.scheduler(slots=2, max_length=200, kept_outputs=0) as scheduler:
        assert run(scheduler, [5, 9, 7], options) == run(scheduler, [5, 9, 7], options) == (plain, many)
    with pytest.raises(UsageError, match="kept_outputs must be at least 0, not -1"):
        lm.scheduler(kept_outputs=-1)
