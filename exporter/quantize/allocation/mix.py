"""Bits and block sizes for each weight, where they reduce the estimated KL divergence most."""

from collections.abc import Mapping

from ....errors import UsageError
from ..formats.blocks import BlockFormat
from ..formats.scheme import Scheme, Schemes
from ..layers.sensitivity import KlEstimates
from ..options import Kept, QuantizeOptions
from .allocate import FormatCost, allocate
from .candidates import Candidate, kept

SCALE_BYTES = 2
BITS_PER_WEIGHT = 4.9
"""The default size of an int4 mix."""

MIXED_BLOCKS = (16, 32, 64, 128)
EIGHT_BITS_GAIN = 256.0
"""The ratio of the KL estimates of 4 and 8 bits on the same blocks: the step is a sixteenth, and its square counts."""

GPTQ_GAIN = 1.7
"""The ratio of the KL estimates of rounding, which is measured, and of GPTQ in 4 bits."""


def mixed(found: list[Candidate], estimates: KlEstimates, options: QuantizeOptions, method: str) -> Schemes:
    """Return the schemes with the least estimate within ``target_size``, or the smallest that reach ``target_kl``.

    Raises:
        UsageError: the target cannot be met; the message gives the closest that can.
    """
    special = kept(found, options.keep)
    floats = sum(4 * c.size for c in found if special.get(c.tensor) == "float")
    gain = GPTQ_GAIN if method == "gptq" else 1.0
    costs = {
        c.tensor: _costs(c, estimates[c.tensor], special.get(c.tensor), gain, options)
        for c in found
        if special.get(c.tensor) != "float"
    }
    size = options.target_size
    if size is None and options.target_kl is None:
        # Kept weights do not reduce the budget of the others.
        free = sum(c.size for c in found if c.tensor not in special)
        fixed = sum(costs[name][0].bytes for name in costs if name in special)
        size = int(free * BITS_PER_WEIGHT / 8) + fixed + floats
    taken = allocate(costs, size=None if size is None else size - floats, kl=options.target_kl)
    total, kl = sum(cost.bytes for cost in taken.values()) + floats, sum(cost.kl_estimate for cost in taken.values())
    if options.target_size is not None and total > options.target_size:
        raise UsageError(
            f"target size is {options.target_size:,} bytes, and the weights take at least {total:,}; "
            "ask for more, or keep less in float or int8"
        )
    if options.target_kl is not None and kl > options.target_kl:
        raise UsageError(
            f"target KL is {options.target_kl:g} nats per token, and the best mix is estimated at {kl:.3g}; "
            "ask for more than that, or for --precision int8"
        )
    return {name: _scheme(taken[name], method) for name in (c.tensor for c in found) if name in taken}


def measured_formats(found: list[Candidate], options: QuantizeOptions) -> dict[str, list[BlockFormat]]:
    """Return the 4-bit formats whose estimates the mix needs, by tensor; those of 8 bits follow from them."""
    special = kept(found, options.keep)
    return {
        c.tensor: [c.format(4, size) for size in _sizes(options)] for c in found if special.get(c.tensor) != "float"
    }


def _scheme(cost: FormatCost[BlockFormat], method: str) -> Scheme:
    solves = method == "gptq" and cost.format.bits == 4
    return Scheme(cost.format, "gptq" if solves else "rtn", kl_estimate=cost.kl_estimate)


def _sizes(options: QuantizeOptions) -> tuple[int, ...]:
    return (options.block_size,) if options.block_size else MIXED_BLOCKS


def _costs(
    candidate: Candidate,
    estimates: Mapping[BlockFormat, float],
    only: Kept | None,
    gain: float,
    options: QuantizeOptions,
) -> list[FormatCost[BlockFormat]]:
    costs = []
    for size in _sizes(options):
        for bits in (4, 8):
            if only in (None, f"int{bits}"):
                format = candidate.format(bits, size)
                kl = estimates[candidate.format(4, size)] / (EIGHT_BITS_GAIN if bits == 8 else gain)
                costs.append(FormatCost(format, format.bytes(*candidate.shape, SCALE_BYTES), kl))
    return costs
