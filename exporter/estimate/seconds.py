"""The time of a quantization: the multiplications of its passes, at the rates of this machine.

A stage's pass computes the layer up to it. Reading the checkpoint and the comparison with it are not included.
"""

from collections.abc import Sequence

from ..quantize.layers.hessian import STRIPS
from ..quantize.layers.sensitivity import HEAD_TOKENS
from ..quantize.layers.smoothing import OUTPUTS
from ..quantize.layers.smoothing import TOKENS as SEARCH_TOKENS
from ..quantize.methods.smooth import POWERS
from ..quantize.texts.generated import BATCH
from .rates import Rates
from .shapes import Layer, Projection
from .work import Work

TRIANGLE = (STRIPS + 1) / (2 * STRIPS)
"""The share of a symmetric product that is computed, in strips from the diagonal on."""

SEARCHED = 2 * len(POWERS) + 1
"""The scales that are tried for a stage."""


def seconds(work: Work, rates: Rates) -> dict[str, float]:
    """Return the seconds of each stage of the progress that takes part."""
    found = {
        "text": _text(work, rates),
        "sensitivity": _sensitivity(work, rates) + _smoothing(work, rates),
        "calibration": _calibration(work, rates),
        "weights": rates.writing * sum(one.size for one in work.decision.candidates),
    }
    return {stage: value for stage, value in found.items() if value}


def _text(work: Work, rates: Rates) -> float:
    """The model writes: for each token of a batch, all weights are multiplied by one row of each window."""
    weights = sum(one.size for one in work.decision.candidates if not one.looked_up or len(one.paths) > 1)
    batches = -(-work.generated // BATCH)
    return rates.few_rows * weights * batches * work.length * min(BATCH, max(1, work.generated))


def _attention(work: Work, tokens: int) -> float:
    """Return the multiply-adds of the scores and the sums of a layer."""
    config = work.config
    return 2.0 * tokens * work.length * config.num_attention_heads * config.head_dim


def _forward(work: Work, layer: Layer, tokens: int) -> float:
    """Return the multiply-adds of a layer."""
    return tokens * sum(one.size * one.share for one in layer.projections) + _attention(work, tokens)


def _passes(work: Work, layer: Layer, tokens: int) -> float:
    """Return the multiply-adds of the passes of one stream through a layer: up to each stage, and to its output."""
    return _attention(work, tokens) + tokens * sum(
        one.size * one.share * layer.passes(one) for one in layer.projections
    )


def _float_passes(work: Work, layer: Layer, tokens: int) -> float:
    """Return the same of the float stream beside it."""
    products = tokens * sum(one.size * one.share * layer.float_passes(one) for one in layer.projections)
    return products + _attention(work, tokens)


def _sensitivity(work: Work, rates: Rates) -> float:
    """One forward pass; then each layer forward and backward, and what an error of each element costs."""
    tokens, config = work.few_tokens, work.config
    if not tokens:
        return 0.0
    total = 0.0
    for layer in work.layers:
        forward = _forward(work, layer, tokens)
        errors = tokens * sum(one.size * one.share for one in layer.projections)
        rounded = work.formats * sum(one.size for one in layer.projections)
        total += layer.count * (
            rates.forward * forward + rates.product * (2 * forward + errors) + rates.rounding * rounded
        )
    if work.decision.task == "text-generation":
        head = config.vocab_size * config.hidden_size
        total += rates.product * head * (2 * tokens + min(HEAD_TOKENS, tokens))
        total += rates.rounding * head * work.formats
    return total


def _smoothing(work: Work, rates: Rates) -> float:
    """The passes of the search for scales, and the products that it compares."""
    tokens = work.smoothing_tokens
    if not tokens:
        return 0.0
    total = 0.0
    for layer in work.layers:
        widths = {one.stage: one.columns for one in layer.projections if not one.expert}
        searched = SEARCHED * OUTPUTS * sum(widths.values())
        total += layer.count * (
            rates.forward * _passes(work, layer, tokens) + searched * (rates.float32 * SEARCH_TOKENS + rates.rounding)
        )
    return total


def _calibration(work: Work, rates: Rates) -> float:
    """GPTQ: the passes of both streams, the sums over each stage's inputs, what follows from them, and the columns."""
    if not work.solves:
        return 0.0
    total = 0.0
    for layer in work.layers:
        passes = _passes(work, layer, work.tokens) + _float_passes(work, layer, work.tokens)
        total += layer.count * rates.forward * passes
        stages: dict[tuple[int, str], list[Projection]] = {}
        for one in layer.projections:
            stages.setdefault((one.stage, one.name.rpartition(".")[0]), []).append(one)
        total += layer.count * sum(_stage(work, stage, rates) for stage in stages.values())
        for one in layer.projections:
            solved = work.solved(layer, one)
            total += layer.count * (_columns(one.rows, one.columns, rates) if solved else rates.rounding * one.size)
    for rows, columns in work.vocabulary:
        total += rates.product * work.tokens * columns**2 * TRIANGLE + rates.factor * columns**3
        total += _columns(rows, columns, rates)
    return total


def _stage(work: Work, stage: Sequence[Projection], rates: Rates) -> float:
    """The Hessian of a stage and its factor; outside experts, the correction towards the float outputs as well.

    The correction is of x where several projections read it, and of the output of one.
    """
    one, rows = stage[0], sum(one.rows for one in stage)
    total = rates.factor * one.columns**3
    if one.expert:
        return total + rates.product * work.tokens * one.share * one.columns**2
    several = len(stage) > 1
    sums = TRIANGLE * one.columns**2 + (one.columns**2 if several else 2 * one.size)
    solution = (one.columns if several else rows) * one.columns**2 * 2 + one.columns**3 / 3
    measured = (2 if several else 1) * rows * one.columns**2
    return total + rates.product * (work.tokens * sums + measured) + rates.float32 * solution


def _columns(rows: int, columns: int, rates: Rates) -> float:
    """GPTQ of a weight: its columns, and the update of later columns after each stride."""
    return rates.column * rows * columns + rates.float32 * rows * columns**2 / 2
