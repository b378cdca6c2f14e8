"""The time of a quantization: the multiplications of its passes, at the rates of this machine.

A stage's pass computes the layer up to it. Reading the checkpoint and the comparison with it are not included.
"""

from ..quantize.layers.hessian import STRIPS
from ..quantize.layers.sensitivity import HEAD_TOKENS
from ..quantize.layers.smoothing import OUTPUTS
from ..quantize.layers.smoothing import TOKENS as SEARCH_TOKENS
from ..quantize.methods.smooth import POWERS
from ..quantize.texts.generated import BATCH
from .rates import Rates
from .shapes import Layer
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
    """Return the multiply-adds of all passes through a layer: one up to each stage, and one to its output."""
    products = tokens * sum(one.size * one.share * layer.passes(one) for one in layer.projections)
    return products + _attention(work, tokens) * max(layer.passes(one) for one in layer.projections)


def _sensitivity(work: Work, rates: Rates) -> float:
    """One forward pass; then each layer forward and backward in float32, and an error product for each format."""
    tokens, config = work.few_tokens, work.config
    if not tokens:
        return 0.0
    total = 0.0
    for layer in work.layers:
        forward = _forward(work, layer, tokens)
        errors = work.formats * tokens * sum(one.size * one.share for one in layer.projections)
        rounded = work.formats * sum(one.size for one in layer.projections)
        total += layer.count * (
            rates.forward * forward + rates.float32 * (2 * forward + errors) + rates.rounding * rounded
        )
    if work.decision.task == "text-generation":
        head = config.vocab_size * config.hidden_size
        total += rates.float32 * head * (2 * tokens + work.formats * min(HEAD_TOKENS, tokens))
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
    """GPTQ: the passes, the Hessian of each stage and of each expert, its factor, and the columns of each weight."""
    if not work.solves:
        return 0.0
    total = 0.0
    for layer in work.layers:
        total += layer.count * rates.forward * _passes(work, layer, work.tokens)
        stages = {(one.stage, one.name.rpartition(".")[0]): one for one in layer.projections}
        for one in stages.values():
            part = 1.0 if one.expert else TRIANGLE
            total += layer.count * rates.float32 * work.tokens * one.share * one.columns**2 * part
            total += layer.count * rates.factor * one.columns**3
        for one in layer.projections:
            solved = work.solved(layer, one)
            total += layer.count * (_columns(one.rows, one.columns, rates) if solved else rates.rounding * one.size)
    for rows, columns in work.vocabulary:
        total += rates.float32 * work.tokens * columns**2 * TRIANGLE + rates.factor * columns**3
        total += _columns(rows, columns, rates)
    return total


def _columns(rows: int, columns: int, rates: Rates) -> float:
    """GPTQ of a weight: its columns, and the update of later columns after each stride."""
    return rates.column * rows * columns + rates.float32 * rows * columns**2 / 2
