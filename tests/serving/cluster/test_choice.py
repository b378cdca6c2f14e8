"""Which replica receives a request."""

import random
from collections import Counter

from intaglio.serving.cluster.choice import Seen, choose, two_of

CHANCE = random.Random(5)


def seen(**holders: tuple[int, ...]) -> Seen[str]:
    found: Seen[str] = Seen()
    for replica, links in holders.items():
        found.add(links, replica)
    return found


def test_the_replica_that_has_read_the_beginning_is_first() -> None:
    known = seen(a=(1, 2, 3), b=(1,))
    for _ in range(20):
        assert choose((3, 2, 1), {"a": 2, "b": 0, "c": 0}, known, 4, CHANCE)[0] == ["a"]


def test_the_longest_beginning_counts() -> None:
    assert choose((9, 3, 2, 1), {"a": 0, "b": 0}, seen(a=(1, 2), b=(1, 2, 3)), 4, CHANCE)[0] == ["b"]


def test_replicas_that_have_read_as_much_are_chosen_by_load() -> None:
    first = choose((2, 1), {"a": 1, "b": 0, "c": 0}, seen(a=(1, 2), b=(1, 2)), 4, CHANCE)[0]
    assert sorted(first) == ["a", "b"]  # Ray takes the less busy of a rank


def test_a_replica_that_is_too_busy_is_not_preferred() -> None:
    known = seen(a=(1, 2, 3), b=(1,))
    assert choose((3, 2, 1), {"a": 4, "b": 0, "c": 0}, known, 4, CHANCE)[0] == ["b"]  # has the shorter beginning
    assert "a" in choose((3, 2, 1), {"a": 4, "b": 1, "c": 1}, known, 4, CHANCE)[0]


def test_the_others_follow_where_the_preferred_one_refuses() -> None:
    ranks = choose((1,), {"a": 0, "b": 0, "c": 0, "d": 0}, seen(a=(1,)), 4, CHANCE)
    assert ranks[0] == ["a"]
    assert sorted(replica for rank in ranks for replica in rank) == ["a", "b", "c", "d"]


def test_an_unknown_request_goes_to_one_of_two_at_random() -> None:
    loads = dict.fromkeys("abcde", 0)
    counts = Counter(tuple(sorted(choose((7,), loads, seen(a=(1,)), 4, CHANCE)[0])) for _ in range(2000))
    assert len(counts) == 10  # every pair
    assert min(counts.values()) > 100


def test_one_replica_is_chosen_without_luck() -> None:
    assert choose((), {"a": 900}, seen(), 4, CHANCE) == [["a"]]
    assert two_of([], CHANCE) == []


def test_what_is_seen_is_bounded_and_the_least_recently_used_is_forgotten() -> None:
    known: Seen[str] = Seen(size=3)
    known.add((1, 2, 3), "a")
    known.add((1,), "b")
    known.add((4,), "b")
    assert len(known) == 3
    assert [sorted(known.holders(link)) for link in (1, 2, 3, 4)] == [["a", "b"], [], ["a"], ["b"]]


def test_replicas_that_have_ended_are_forgotten() -> None:
    known = seen(a=(1, 2), b=(1,))
    known.keep(["b"])
    assert known.holders(1) == {"b"}
    assert known.holders(2) == frozenset()
    assert len(known) == 1
