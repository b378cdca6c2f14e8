"""Chunks of long prompts are as large as the requests that are decoded meanwhile allow."""

from intaglio.runtime.generation.pace import LONG_PROMPT, SLOWDOWN, Pace


def settled(decoding: float, fixed: float, each: float, most: int = 64) -> tuple[Pace, int]:
    """Return a pace after 50 steps in which a chunk takes ``fixed + each * tokens`` seconds, and its size."""
    pace = Pace(most)
    for _ in range(50):
        size = pace.size(LONG_PROMPT)
        pace.read(LONG_PROMPT, size, fixed + each * size)
        pace.decoded(decoding)
    return pace, pace.size(LONG_PROMPT)


def test_a_chunk_takes_no_longer_than_decoding_allows() -> None:
    for decoding in (0.03, 0.04, 0.06):
        _, size = settled(decoding, fixed=0.01, each=0.001)
        assert 8 < size < 64
        assert 0.01 + 0.001 * size <= (SLOWDOWN - 1) * decoding * 1.2


def test_where_time_does_not_matter_chunks_are_large() -> None:
    assert settled(1.0, fixed=0.01, each=0.001)[1] == 64


def test_where_nothing_is_short_enough_chunks_have_the_fewest_tokens() -> None:
    assert settled(0.001, fixed=1.0, each=0.1)[1] == 8


def test_chunks_grow_again_when_decoding_takes_longer() -> None:
    pace, small = settled(0.02, fixed=0.01, each=0.001)
    for _ in range(50):
        size = pace.size(LONG_PROMPT)
        pace.read(LONG_PROMPT, size, 0.01 + 0.001 * size)
        pace.decoded(0.2)
    assert pace.size(LONG_PROMPT) == 64 > small


def test_short_prompts_are_read_in_large_chunks_and_teach_nothing() -> None:
    pace, small = settled(0.02, fixed=0.01, each=0.001)
    pace.read(LONG_PROMPT - 1, 64, 10.0)
    assert pace.size(LONG_PROMPT - 1) == 64
    assert pace.size(LONG_PROMPT) == small


def test_the_first_chunk_has_the_fewest_tokens_and_waits_for_a_time_of_decoding() -> None:
    pace = Pace(64)
    assert pace.size(LONG_PROMPT) == 8
    pace.read(LONG_PROMPT, 8, 0.0)
    assert pace.size(LONG_PROMPT) == 8
    pace.decoded(1.0)
    pace.read(LONG_PROMPT, 8, 0.0)
    assert pace.size(LONG_PROMPT) == 16
