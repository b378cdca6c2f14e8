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

Costs = list[FormatCost[BlockFormat]]

MIXED_BLOCKS = (16, 32, 64, 128)
BIT_GAIN = 4.0
"""The ratio of the KL estimates of one bit less and of one more, on the same blocks: half the step, and its square
counts."""

GPTQ_GAIN = 1.7
"""The ratio of the KL estimates of rounding, which is measured, and of GPTQ in 4 and 5 bits."""


def mixed(found: list[Candidate], estimates: KlEstimates, options: QuantizeOptions, method: str) -> Schemes:
    """Return the schemes with the least estimate within ``target_size``, or the smallest that reach ``target_kl``.

    Raises:
        UsageError: the target KL cannot be met; the message gives the closest that can.
    """
    special = kept(found, options.keep)
    floats = _float_bytes(found, special)
    gain = GPTQ_GAIN if method == "gptq" else 1.0
    each = {
        c.tensor: _costs(c, estimates[c.tensor], special.get(c.tensor), gain, options)
        for c in found
        if special.get(c.tensor) != "float"
    }
    together = _together(found, special)
    costs = _joined(each, together, found)
    size = options.target_size
    if size is None and options.target_kl is None:
        # Kept weights do not reduce the budget of the others.
        free = sum(c.size for c in found if c.tensor not in special)
        fixed = sum(costs[name][0].bytes for name in costs if name in special)
        size = int(free * BITS_PER_WEIGHT / 8) + fixed + floats
    taken = allocate(costs, size=None if size is None else size - floats, kl=options.target_kl)
    kl = sum(cost.kl_estimate for cost in taken.values())
    if options.target_kl is not None and kl > options.target_kl:
        raise UsageError(
            f"target KL is {options.target_kl:g} nats per token, and the best mix is estimated at {kl:.3g}; "
            "ask for more than that, or for --precision int8"
        )
    chosen = {
        name: next(cost for cost in own if cost.format == taken[together.get(name, name)].format)
        for name, own in each.items()
    }
    return {c.tensor: _scheme(c, chosen[c.tensor], method) for c in found if c.tensor in chosen}


def _together(found: list[Candidate], special: Mapping[str, Kept]) -> dict[str, str]:
    """Return the mixture of each weight that has the format of the others in its mixture, as QMoE wants it."""
    return {c.tensor: c.mixture for c in found if c.mixture is not None and c.tensor not in special}


def _joined(each: Mapping[str, Costs], together: Mapping[str, str], found: list[Candidate]) -> dict[str, Costs]:
    """Return the costs with those of a mixture's weights added up; blocks that do not divide its rows are left out."""
    joined: dict[str, Costs] = {}
    columns: dict[str, list[int]] = {}
    for candidate in found:
        if candidate.tensor not in each:
            continue
        name = together.get(candidate.tensor, candidate.tensor)
        columns.setdefault(name, []).append(candidate.shape[1])
        own = each[candidate.tensor]
        before = joined.get(name)
        joined[name] = own if before is None else [_sum(a, b) for a, b in zip(before, own, strict=True)]
    for name in set(together.values()) & joined.keys():
        whole = [cost for cost in joined[name] if all(n % cost.format.block_size == 0 for n in columns[name])]
        joined[name] = whole or joined[name]
    return joined


def _sum(one: FormatCost[BlockFormat], other: FormatCost[BlockFormat]) -> FormatCost[BlockFormat]:
    assert one.format == other.format
    return FormatCost(one.format, one.bytes + other.bytes, one.kl_estimate + other.kl_estimate)


def check_target_size(found: list[Candidate], options: QuantizeOptions) -> None:
    """Check that the smallest formats fit into ``target_size``; this needs shapes alone.

    Raises:
        UsageError: they do not; the message gives the size that they need.
    """
    if options.target_size is None:
        return
    special = kept(found, options.keep)
    least = _float_bytes(found, special)
    for c in found:
        if special.get(c.tensor) != "float":
            least += min(_bytes(c, format) for format in _formats(c, special.get(c.tensor), options))
    if least > options.target_size:
        raise UsageError(
            f"target size is {options.target_size:,} bytes, and the weights take at least {least:,}; "
            "ask for more, or keep less in float or int8"
        )


def measured_formats(found: list[Candidate], options: QuantizeOptions) -> dict[str, list[BlockFormat]]:
    """Return the 4-bit formats whose estimates the mix needs, by tensor; those of more bits follow."""
    special = kept(found, options.keep)
    return {
        c.tensor: [
            c.format(4, size)
            for size in _sizes(options)
            if any(c.sizes(bits, (size,)) for bits in _widths(c, special.get(c.tensor)))
        ]
        for c in found
        if special.get(c.tensor) != "float"
    }


def _scheme(candidate: Candidate, cost: FormatCost[BlockFormat], method: str) -> Scheme:
    # In 8 bits a projection's own error hardly matters; it corrects those of the layers before.
    solves = method == "gptq" and (cost.format.bits < 8 or not candidate.per_token)
    return Scheme(cost.format, "gptq" if solves else "rtn", kl_estimate=cost.kl_estimate)


def _sizes(options: QuantizeOptions) -> tuple[int, ...]:
    return (options.block_size,) if options.block_size else MIXED_BLOCKS


def _costs(
    candidate: Candidate,
    estimates: Mapping[BlockFormat, float],
    only: Kept | None,
    gain: float,
    options: QuantizeOptions,
) -> Costs:
    costs = []
    for format in _formats(candidate, only, options):
        kl = estimates[candidate.format(4, format.block_size)] / BIT_GAIN ** (format.bits - 4)
        kl /= 1.0 if format.bits == 8 else gain
        costs.append(FormatCost(format, _bytes(candidate, format), kl))
    return costs


def _formats(candidate: Candidate, only: Kept | None, options: QuantizeOptions) -> list[BlockFormat]:
    return [
        candidate.format(bits, size)
        for size in _sizes(options)
        for bits in _widths(candidate, only)
        if candidate.sizes(bits, (size,))
    ]


def _widths(candidate: Candidate, only: Kept | None) -> tuple[int, ...]:
    """Return the numbers of bits to choose from: of a weight that is kept, its own."""
    return candidate.widths if only is None else (int(only.removeprefix("int")),)


def _bytes(candidate: Candidate, format: BlockFormat) -> int:
    return format.bytes(*candidate.shape, SCALE_BYTES)


def _float_bytes(found: list[Candidate], special: Mapping[str, Kept]) -> int:
    return sum(4 * c.size for c in found if special.get(c.tensor) == "float")
