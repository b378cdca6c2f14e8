"""The mix against every other mix there is."""

import itertools

from intaglio.exporter.quantize.allocation.allocate import Choice, allocate

CHOICES = {
    "a": [Choice("4", 40, 8.0), Choice("4s", 44, 6.5), Choice("8", 80, 0.1)],
    "b": [Choice("4", 10, 5.0), Choice("8", 20, 0.2)],
    "c": [Choice("4", 100, 1.0), Choice("worse", 120, 1.2), Choice("8", 200, 0.0)],
    "d": [Choice("4", 30, 2.0), Choice("4s", 33, 1.9), Choice("8", 60, 0.1)],
}


def totals(chosen: dict[str, Choice[str]]) -> tuple[int, float]:
    return sum(c.bytes for c in chosen.values()), sum(c.damage for c in chosen.values())


def everything() -> list[tuple[int, float]]:
    mixes = itertools.product(*CHOICES.values())
    return [(sum(c.bytes for c in mix), sum(c.damage for c in mix)) for mix in mixes]


def test_no_mix_of_the_same_size_does_less_damage() -> None:
    for size in range(180, 365, 5):
        spent, damage = totals(allocate(CHOICES, size=size))
        assert spent <= size
        assert all(other >= damage - 1e-12 for bytes, other in everything() if bytes <= spent)


def test_a_target_of_damage_is_met_with_little() -> None:
    for target in (12.0, 8.0, 4.0, 1.0, 0.5):
        spent, damage = totals(allocate(CHOICES, damage=target))
        assert damage <= target
        dearest = max(c.bytes for options in CHOICES.values() for c in options)
        assert spent <= min(bytes for bytes, other in everything() if other <= target) + dearest


def test_what_cannot_be_met_gives_the_nearest() -> None:
    assert totals(allocate(CHOICES, size=1)) == (180, 16.0)
    assert totals(allocate(CHOICES, damage=0.0)) == (360, 0.1 + 0.2 + 0.0 + 0.1)


def test_a_dominated_choice_is_never_taken() -> None:
    for size in range(180, 365, 5):
        assert allocate(CHOICES, size=size)["c"].format != "worse"
