"""The table of limits, and the verdicts that follow from it."""

from dataclasses import replace
from typing import get_args

import pytest
from intaglio.artifact import (
    CacheDtype,
    Manifest,
    ModelFacts,
    Precision,
    Quantization,
    Source,
    Target,
    TensorEntry,
)
from intaglio.errors import UsageError
from intaglio.parity.report.result import CaseResult, Figures
from intaglio.parity.report.thresholds import (
    ENOUGH,
    LIMITS,
    NOISE,
    Standard,
    judge,
    limits_for,
    overall,
    pooled,
    standard_of,
    worst,
)


def figures(**changes: float) -> Figures:
    values = {"max_difference": 0.0, "mean_difference": 0.0, "relative_error": 0.0, "kl_mean": 0.0}
    return Figures(positions=100, **{**values, **changes})  # type: ignore[arg-type]


def test_every_precision_has_limits_and_noise_with_a_reason() -> None:
    assert set(LIMITS) == set(NOISE) == {*get_args(Precision), "carried"}
    for limits in LIMITS.values():
        assert {limit.measure for limit in limits} == {"relative_error", "kl_mean", "flips"}
        assert all(limit.faithful < limit.drifted and limit.reason for limit in limits)


def manifest(target: Target, cache_dtype: CacheDtype, *weights: Quantization | None) -> Manifest:
    """Return a manifest of the fields that the standard follows from."""
    facts = ModelFacts(8, 8, 1, 1, 1, 8, (None,), 8, cache_dtype)
    tensors = {f"{number}": TensorEntry("int4", (8, 8), ("a",), one) for number, one in enumerate(weights)}
    return Manifest("qwen2", "text-generation", target, "int4", Source("a", None, ""), facts, tensors, {}, {}, {})


STORED = Quantization(4, 32, True, "stored", 0, 0.0)


@pytest.mark.parametrize(
    ("found", "standard"),
    [
        (manifest("ort", "float32", STORED, None), "fp32"),
        (manifest("ort", "float32", replace(STORED, error=6e-8)), "fp32"),
        (manifest("ort", "float16", STORED), "fp16"),
        (manifest("ort", "float32", STORED, replace(STORED, error=1e-4)), "fp16"),
        (manifest("ort", "float32", STORED, replace(STORED, accuracy_level=4)), "carried"),
        (manifest("standard", "float32", STORED), "carried"),
        (manifest("ort", "float32", STORED, replace(STORED, method="rtn")), "int4"),
        (manifest("ort", "float32", replace(STORED, error=0.01)), "int4"),
    ],
)
def test_carried_codes_are_not_judged_as_four_bits(found: Manifest, standard: str) -> None:
    assert standard_of(found) == standard


def test_limits_widen_from_precision_to_precision() -> None:
    for measure in ("relative_error", "kl_mean", "flips"):
        drifted = [next(x.drifted for x in LIMITS[p] if x.measure == measure) for p in ("fp32", "int8", "int4")]
        assert drifted == sorted(drifted)


@pytest.mark.parametrize(
    ("precision", "changes", "verdict", "reason"),
    [
        ("int8", {"flips": 3}, "drifted", "flips is 0.03, above 0.02"),
        ("int8", {"relative_error": 0.06}, "drifted", "relative_error is 0.06, above 0.05"),
        ("fp32", {"relative_error": 2e-6}, "faithful", None),
        ("fp32", {"relative_error": 5e-4}, "drifted", "relative_error is 0.0005, above 1e-05"),
        ("fp32", {"relative_error": 0.5}, "broken", "relative_error is 0.5, above 0.01"),
        ("fp32", {"flips": 1}, "drifted", "flips is 0.01, above 0"),
        ("int4", {"kl_mean": 0.01, "relative_error": 0.1}, "faithful", None),
        ("int4", {"kl_mean": 0.07}, "drifted", "kl_mean is 0.07, above 0.02"),
        ("int4", {"kl_mean": 2.0}, "broken", "kl_mean is 2, above 0.5"),
    ],
)
def test_the_verdict(precision: Precision, changes: dict[str, float], verdict: str, reason: str | None) -> None:
    found = judge(figures(**changes), limits_for(precision, {}))
    assert found == (verdict, (reason,) if reason else ())


QUANTIZED: tuple[Standard, ...] = ("int8", "int4", "carried")


def case(name: str, kl: float, positions: int, error: float, standard: Standard = "int8") -> CaseResult:
    """Return a case with a mean divergence and its standard error."""
    found = Figures(positions, 0.0, 0.0, 0.0, kl_mean=kl, standard_errors={"kl_mean": error})
    verdict, reasons = judge(found, limits_for(standard, {}))
    return CaseResult(name, name, verdict, found, reasons=reasons)


def test_limits_of_quantized_copies_state_the_positions_that_they_need() -> None:
    for standard, limits in LIMITS.items():
        assert {limit.positions for limit in limits} == {ENOUGH if standard in QUANTIZED else 0}


def test_a_short_case_alone_does_not_decide_unless_it_is_beyond_chance() -> None:
    """A padded case of a 1.5B in int8: 0.005 over few positions, where its text as a whole has 0.0008."""
    prompt, padded = case("prompt", 0.0008, 1016, 0.0001), case("padded-right", 0.005, 60, 0.0015)
    assert (prompt.verdict, padded.verdict) == ("faithful", "faithful")
    assert overall((prompt, padded), (), (), limits_for("int8", {})) == ("faithful", ())
    certain = case("padded-right", 0.02, 60, 0.003)
    assert overall((prompt, certain), (), (), limits_for("int8", {})) == (
        "drifted",
        ("padded-right: kl_mean is 0.02, above 0.003",),
    )
    assert case("padded-right", 0.02, ENOUGH - 1, 0.0).verdict == "faithful"
    assert case("padded-right", 0.06, 1, 0.06).verdict == "broken"  # no position may be that far off


def test_all_cases_together_decide_where_none_does() -> None:
    cases = tuple(case(name, 0.0035, 200, 0.0003) for name in ("prompt", "decode", "chunks"))
    assert {one.verdict for one in cases} == {"faithful"}
    verdict, reasons = overall(cases, (), (), limits_for("int8", {}))
    assert (verdict, reasons) == ("drifted", ("all cases together: kl_mean is 0.0035, above 0.003",))


def test_a_longer_text_does_not_turn_the_verdict() -> None:
    """``--max-length`` adds cases at edges of the attention, of few positions each."""
    for kl, verdict in ((0.0025, "faithful"), (0.0035, "drifted")):
        cases = (case("prompt", kl, 1016, 0.0001), case("decode", kl, 64, 0.001))
        for edge in (0.0, 0.01):
            more = (*cases, case("edge-4096-decode", edge, 18, 0.004), case("edge-4096-prompt", edge, 32, 0.003))
            assert overall(more, (), (), limits_for("int8", {}))[0] == verdict
    fault = case("edge-4096-decode", 0.03, 18, 0.005)
    assert overall((*cases, fault), (), (), limits_for("int8", {}))[0] == "drifted"


def test_exact_precisions_are_judged_case_by_case() -> None:
    found = Figures(1, 0.0, 0.0, 1e-4, standard_errors={"relative_error": 1.0})
    assert judge(found, limits_for("fp32", {})) == ("drifted", ("relative_error is 0.0001, above 1e-05",))


def test_pooled_figures_are_weighted_by_positions() -> None:
    found = pooled([figures(kl_mean=0.01, relative_error=0.3, flips=2), replace(figures(flips=1), positions=300)])
    assert found is not None
    assert (found.positions, found.flips) == (400, 3)
    assert found.kl_mean == pytest.approx(0.0025)
    assert found.relative_error == pytest.approx(0.15)
    assert pooled([]) is None


def test_a_given_limit_breaks_what_is_beyond_it() -> None:
    limits = limits_for("int4", {"kl_mean": 0.05})
    assert judge(figures(kl_mean=0.04), limits)[0] == "drifted"
    verdict, reasons = judge(figures(kl_mean=0.06), limits)
    assert verdict == "broken"
    assert reasons == ("kl_mean is 0.06, above 0.05",)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kl": 0.1}, "--limit kl: unknown measure; choose one of relative_error, kl_mean, flips"),
        ({"kl_mean": -1.0}, "--limit kl_mean=-1: a limit is a number of 0 or more"),
        ({"kl_mean": float("nan")}, "--limit kl_mean=nan: a limit is a number of 0 or more"),
    ],
)
def test_refused_limits(given: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        limits_for("fp32", given)
    assert str(caught.value) == message


def test_the_worst_of_several() -> None:
    assert worst(["faithful", "broken", "drifted"]) == "broken"
    assert worst([]) == "faithful"
