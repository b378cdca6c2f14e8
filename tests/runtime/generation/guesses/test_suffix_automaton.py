"""The suffix automaton against a search of the text, written out."""

import random
from itertools import count

import pytest
from intaglio.runtime.generation.guesses import suffix_automaton
from intaglio.runtime.generation.guesses.suffix_automaton import EMPTY, SEPARATOR, Match, SuffixAutomaton


def longest_repeated_end(text: list[int]) -> int:
    """Return the length of the longest end of a text that occurs before."""
    for length in range(len(text) - 1, 0, -1):
        if any(text[start : start + length] == text[-length:] for start in range(len(text) - length)):
            return length
    return 0


def ends_of(text: list[int], context: tuple[int, ...]) -> list[int]:
    size = len(context)
    return [start + size for start in range(len(text) - size + 1) if tuple(text[start : start + size]) == context]


def match_of(automaton: SuffixAutomaton, tokens: tuple[int, ...]) -> Match:
    match = EMPTY
    for token in tokens:
        match = automaton.follow(match, token)
    return match


@pytest.mark.parametrize("seed", range(40))
def test_every_context_of_a_text_is_known_and_counted(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random texts and nearly periodic ones, of few different tokens, checked after every token."""
    chance = random.Random(seed)
    different, counted = chance.choice([1, 2, 3, 5]), chance.choice([2, 3, 4, 8])
    monkeypatch.setattr(suffix_automaton, "COUNTED", counted)
    period = [chance.randrange(different) for _ in range(9)]
    automaton, text = SuffixAutomaton(), []
    for step in range(50):
        token = period[step % 9] if seed % 2 and chance.random() < 0.9 else chance.randrange(different)
        automaton.add(token)
        text.append(token)
        assert automaton.longest().length == longest_repeated_end(text)
    for length in range(1, counted + 1):
        for context in {tuple(text[start : start + length]) for start in range(len(text) - length + 1)}:
            match = match_of(automaton, context)
            assert match.length == length
            ends = ends_of(text, context)
            following = [text[end] for end in ends if end < len(text)]
            found = automaton.likely(match)
            if not following:
                assert found is None
                continue
            assert found is not None
            most = max(following.count(token) for token in following)
            assert found[1:] == (most, len(ends))
            latest = [token for token in following if following.count(token) == most][-1]
            assert found[0] == latest


def test_of_equally_frequent_tokens_the_latest_is_likely() -> None:
    automaton = SuffixAutomaton([1, 2, 5, 1, 2, 6, 1, 2])
    assert automaton.longest().length == 2
    assert automaton.likely(automaton.longest()) == (6, 1, 3)
    automaton.extend([5, 1, 2])
    assert automaton.longest().length == 5
    assert automaton.likely(automaton.longest()) == (6, 1, 2)  # after 1, 2, 5, 1, 2
    assert automaton.likely(match_of(automaton, (1, 2))) == (5, 2, 4)


def test_a_context_that_is_not_there_is_shortened() -> None:
    automaton = SuffixAutomaton([1, 2, 3, 4, 9, 3, 5])
    assert match_of(automaton, (1, 2, 3)).length == 3
    assert automaton.follow(match_of(automaton, (1, 2, 3)), 5).length == 2
    assert automaton.follow(match_of(automaton, (1, 2, 3)), 7) == EMPTY
    assert automaton.likely(EMPTY) is None


def test_a_long_context_is_followed_by_its_latest_token() -> None:
    long = list(range(100, 160))
    automaton = SuffixAutomaton([*long, 1, *long, 2, *long, 2, *long, 3, *long])
    assert automaton.longest().length == 60
    found = automaton.likely(automaton.longest())
    assert found is not None
    assert found[0] == 2  # its last tokens are counted
    other = list(range(200, 260))
    automaton = SuffixAutomaton([7, *long, 1, 8, *long, 2, 9, *long, 2, 7, *long])
    found = automaton.likely(automaton.longest())
    assert found == (1, 0, 0)  # 7 and the 60 tokens occurred once
    automaton.extend([4, *other, 7, *long])
    assert automaton.likely(automaton.longest()) == (4, 0, 0)


def test_no_context_spans_two_texts() -> None:
    automaton = SuffixAutomaton([1, 2, 3, SEPARATOR, 4, 5, SEPARATOR, 1, 2, 3, SEPARATOR])
    assert automaton.likely(match_of(automaton, (1, 2, 3))) is None
    assert match_of(automaton, (3, 4)).length == 1
    assert len(automaton) == 11


@pytest.mark.parametrize("text", ["same", "period", "binary", "random"])
def test_memory_is_bounded_by_the_text(text: str) -> None:
    chance = random.Random(0)
    tokens = {
        "same": [5] * 5000,
        "period": [token % 50 for token in range(5000)],
        "binary": [chance.randrange(2) for _ in range(5000)],
        "random": [chance.randrange(150_000) for _ in range(5000)],
    }[text]
    automaton = SuffixAutomaton(tokens)
    assert len(automaton) == 5000
    assert automaton.bytes < 300 * 5000


def test_a_token_takes_a_bounded_number_of_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a text of one token, where every end of it is an end of a longer one."""
    calls = count()
    target = SuffixAutomaton._target

    def counted(automaton: SuffixAutomaton, state: int, token: int) -> int:
        next(calls)
        return target(automaton, state, token)

    monkeypatch.setattr(SuffixAutomaton, "_target", counted)
    automaton = SuffixAutomaton([5] * 1000)
    before = next(calls)
    automaton.extend([5] * 1000)
    assert next(calls) - before < 1000 * (2 * suffix_automaton.COUNTED + 4)
