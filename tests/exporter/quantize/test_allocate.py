"""The allocation is compared with every other possible one."""

import itertools

from intaglio.exporter.quantize.allocation.allocate import FormatCost, allocate

COSTS = {
    "a": [FormatCost("4", 40, 8.0), FormatCost("4s", 44, 6.5), FormatCost("8", 80, 0.1)],
    "b": [FormatCost("4", 10, 5.0), FormatCost("8", 20, 0.2)],
    "c": [FormatCost("4", 100, 1.0), FormatCost("worse", 120, 1.2), FormatCost("8", 200, 0.0)],
    "d": [FormatCost("4", 30, 2.0), FormatCost("4s", 33, 1.9), FormatCost("8", 60, 0.1)],
}


def totals(chosen: dict[str, FormatCost[str]]) -> tuple[int, float]:
    return sum(c.bytes for c in chosen.values()), sum(c.kl_estimate for c in chosen.values())


def everything() -> list[tuple[int, float]]:
    mixes = itertools.product(*COSTS.values())
    return [(sum(c.bytes for c in mix), sum(c.kl_estimate for c in mix)) for mix in mixes]


def test_no_mix_of_the_same_size_has_a_lower_estimate() -> None:
    for size in range(180, 365, 5):
        spent, kl = totals(allocate(COSTS, size=size))
        assert spent <= size
        assert all(other >= kl - 1e-12 for bytes, other in everything() if bytes <= spent)


def test_a_target_kl_is_met_with_few_bytes() -> None:
    for target in (12.0, 8.0, 4.0, 1.0, 0.5):
        spent, kl = totals(allocate(COSTS, kl=target))
        assert kl <= target
        dearest = max(c.bytes for options in COSTS.values() for c in options)
        assert spent <= min(bytes for bytes, other in everything() if other <= target) + dearest


def test_a_target_out_of_reach_gives_the_nearest() -> None:
    assert totals(allocate(COSTS, size=1)) == (180, 16.0)
    assert totals(allocate(COSTS, kl=0.0)) == (360, 0.1 + 0.2 + 0.0 + 0.1)


def test_a_dominated_format_is_never_taken() -> None:
    for size in range(180, 365, 5):
        assert allocate(COSTS, size=size)["c"].format != "worse"
