"""Usual mistakes of RoPE, each applied to the source's attention operator."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from torch import Tensor

from ....models.family import FAMILIES
from ....models.rope import RopeConfig
from .attention_variant import AttentionVariant, Rotation, config_rotation, fixed_rotation
from .mismatch import Hypothesis, Mismatch

THETAS = (10_000.0, 100_000.0, 500_000.0, 1_000_000.0, 10_000_000.0, 1_000.0, 500.0)
TABLE_LENGTHS = (2048, 4096)
"""Usual lengths of a table of angles."""
SEARCH_STEPS = 48


def rope_hypotheses(mismatch: Mismatch, correct: AttentionVariant) -> Iterator[Hypothesis]:
    config, rope = mismatch.config, mismatch.config.rope
    own = config_rotation(config, correct.positions[:, -1:] + 1)
    if correct.query_rotation is None:
        family = FAMILIES[config.family].title
        text = f"RoPE is applied to this layer, layer {mismatch.layer} is global and {family} has none"
        default = fixed_rotation(replace(rope, type="default"), config.head_dim)
        yield f"{text} there", correct.rotated_by(own)()
        yield f"{text} there (and its angles are of the default type)", correct.rotated_by(default)()
        return
    yield "RoPE is missing: queries and keys are not rotated", correct.rotated_by(None)()
    yield "RoPE rotates the queries only", replace(correct, key_rotation=None)()
    yield "RoPE rotates the keys only", replace(correct, query_rotation=None)()
    yield from _other_configs(mismatch, correct)
    yield from _other_angles(mismatch, correct)
    if correct.past is not None:
        for offset, word in ((1, "late"), (-1, "early")):
            yield f"the new tokens are rotated one position too {word}", correct.rotated_by(own, offset=offset)()
    for last in _last_angles(mismatch, int(correct.positions.max())):
        text = f"RoPE's angles end at position {last:,}: later positions repeat it"
        yield text, correct.rotated_by(_clamped(own, last))()


def _other_configs(mismatch: Mismatch, correct: AttentionVariant) -> Iterator[Hypothesis]:
    """Yield rotations of another theta, another type, or one of LongRoPE's two sets of factors."""
    rope, head_dim = mismatch.config.rope, mismatch.config.head_dim

    def output(changed: RopeConfig, *, long: bool = False) -> Tensor:
        return correct.rotated_by(fixed_rotation(changed, head_dim, long=long))()

    if rope.type != "default":
        default = replace(rope, type="default")
        scaling = f"config.json's scaling of type {rope.type!r} is left out"
        yield f"RoPE is of the default type: {scaling}", output(default)
        for theta in THETAS:
            text = f"RoPE is of the default type with theta {theta:,.0f}: {scaling}, and its theta is {rope.theta:,.0f}"
            yield text, output(replace(default, theta=theta))
    for theta in THETAS:
        if theta != rope.theta:
            text = f"RoPE's theta is {theta:,.0f}, config.json's rope_theta is {rope.theta:,.0f}"
            yield text, output(replace(rope, theta=theta))
    if rope.type == "longrope":
        for long in (False, True):
            length = rope.original_max_position_embeddings
            text = f"RoPE uses {'long' if long else 'short'}_factor at every length, the factors change beyond {length}"
            yield text, output(rope, long=long)


def _other_angles(mismatch: Mismatch, correct: AttentionVariant) -> Iterator[Hypothesis]:
    """Yield rotations that use the right angles in a wrong way."""
    cos, sin = mismatch.layer_run.plan.cos, mismatch.layer_run.plan.sin
    yield "RoPE's cos and sin are swapped", correct.rotated_by(lambda positions: (sin, cos))()
    yield (
        "RoPE rotates in the opposite direction: sin has the wrong sign",
        correct.rotated_by(lambda positions: (cos, -sin))(),
    )
    yield "RoPE rotates the pairs (2i, 2i + 1) instead of (i, i + head_dim/2)", replace(correct, interleaved=True)()
    factor = float((cos.square() + sin.square()).mean().sqrt())
    if abs(factor - 1) > 1e-3:
        text = f"RoPE's attention_factor of {factor:.4g} is left out"
        yield text, correct.rotated_by(lambda positions: (cos / factor, sin / factor))()


def _clamped(rotation: Rotation, last: int) -> Rotation:
    return lambda positions: rotation(positions.clamp(max=last))


def _last_angles(mismatch: Mismatch, last: int) -> list[int]:
    """Return the positions before ``last`` at which a table of angles may end."""
    config, correct = mismatch.config, last_correct_position(mismatch)
    original = config.rope.original_max_position_embeddings
    lengths = {config.context_length // 2, config.context_length // 4, original, *TABLE_LENGTHS}
    return [*([correct] if correct is not None else []), *sorted(n - 1 for n in lengths if 1 < n <= last)]


def last_correct_position(mismatch: Mismatch) -> int | None:
    """Return the position up to which the output is correct; None unless that is a part of it."""
    expected, actual = mismatch.expected.double(), mismatch.actual.double()
    scenario = mismatch.layer_run.scenario
    if expected.shape != actual.shape or scenario.has_padding:
        return None
    wrong = (expected - actual).norm(dim=-1) > 2 * mismatch.budget * expected.norm(dim=-1)
    positions = wrong.any(0).nonzero().flatten()
    if not len(positions) or int(positions[0]) == 0:
        return None
    return scenario.past_length + int(positions[0]) - 1


def fitted_theta(mismatch: Mismatch, correct: AttentionVariant) -> Iterator[Hypothesis]:
    """Yield the theta that fits the artifact's output best."""
    rope, head_dim = mismatch.config.rope, mismatch.config.head_dim
    if correct.query_rotation is None or rope.length_dependent:
        return
    for kind in dict.fromkeys((rope.type, "default")):
        typed = replace(rope, type=kind)

        def output(theta: float, typed: RopeConfig = typed) -> Tensor:
            return correct.rotated_by(fixed_rotation(replace(typed, theta=theta), head_dim))()

        theta = minimize(lambda theta: mismatch.error_under(output(theta)), 10.0, 1e9)
        if kind == rope.type and abs(theta / rope.theta - 1) < 1e-3:
            continue
        text = f"RoPE's theta is about {theta:,.0f}, config.json's rope_theta is {rope.theta:,.0f}"
        yield text if kind == rope.type else f"{text}, and its type {rope.type!r} is left out", output(theta)


def minimize(cost: Callable[[float], float], low: float, high: float) -> float:
    """Return the positive number between two others with the least cost.

    A grid of logarithms gives the interval, and golden-section search the number in it.
    """
    points = [math.log(low) + i / SEARCH_STEPS * math.log(high / low) for i in range(SEARCH_STEPS + 1)]
    best = min(range(len(points)), key=lambda i: cost(math.exp(points[i])))
    left, right = points[max(0, best - 1)], points[min(SEARCH_STEPS, best + 1)]
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(SEARCH_STEPS):
        one, other = right - golden * (right - left), left + golden * (right - left)
        if cost(math.exp(one)) <= cost(math.exp(other)):
            right = other
        else:
            left = one
    return math.exp((left + right) / 2)
