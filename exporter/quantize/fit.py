"""Weights in the formats that a device takes: what the mix and the defaults may choose, and what the caller may not."""

from collections.abc import Sequence
from dataclasses import replace

from ...artifact import FloatPrecision, Target
from ...devices.findings import REFUSED, Finding, findings
from ...devices.presets import PRESETS, TITLES, DeviceName
from ...devices.rules import MatMul
from ...errors import UsageError
from .allocation.candidates import Candidate, kept
from .formats.blocks import BLOCK_SIZES, ONNX_RUNTIME_BITS
from .options import Kept, QuantizedPrecision, QuantizeOptions

LARGEST = 128
"""The largest block that is chosen where the caller gives none."""

USUAL_SIZE = 32
"""The block size that is preferred where several run equally well."""


def fit(
    found: Sequence[Candidate],
    device: DeviceName | None,
    target: Target,
    precision: QuantizedPrecision,
    options: QuantizeOptions,
    activations: FloatPrecision,
) -> list[Candidate]:
    """Return the weights with the block sizes that the device takes.

    Raises:
        UsageError: the device, or the target, takes none of the formats that the options leave, for some weight.
    """
    widths = _widths(device, target, options)
    # QMoE has no 5 bits.
    fused = tuple(bits for bits in widths if bits in ONNX_RUNTIME_BITS)
    found = [replace(one, widths=widths if one.mixture is None else fused) for one in found]
    if device is None or target != "ort":
        return found
    symmetric = PRESETS[device].symmetric
    special = kept(found, options.keep)
    answer = []
    for candidate in found:
        sizes = {bits: _sizes(candidate, device, bits, options, activations) for bits in ONNX_RUNTIME_BITS}
        answer.append(replace(candidate, symmetric=symmetric, block_sizes=sizes))
        bits = _wanted(special.get(candidate.tensor), precision)
        if bits is not None and not sizes[bits]:
            size = options.block_size or USUAL_SIZE
            worst = next(f for f in _findings(candidate, device, bits, size, activations) if f.effect in REFUSED)
            raise UsageError(
                f"{candidate.paths[-1]} does not run on {TITLES[device]}: {worst.reason}; {worst.remedy} "
                f"({worst.source})"
            )
    return answer


def _widths(device: DeviceName | None, target: Target, options: QuantizeOptions) -> tuple[int, ...]:
    """Return the numbers of bits to choose from.

    Raises:
        UsageError: the options ask for others than the operators have.
    """
    known = options.kernels_bits(target, device)
    wanted = known if options.bits is None else tuple(sorted(options.bits))
    if not set(wanted) <= set(known):
        raise UsageError(
            "weights of 5 bits are for intaglio's kernels: with --target ort, fp32 activations and accuracy level 4, "
            "and for no other device; leave 5 out of --bits"
        )
    return wanted


def _wanted(kept: Kept | None, precision: QuantizedPrecision) -> int | None:
    """Return the bits that a weight must be able to have; None for one that stays in float."""
    wanted = kept or precision
    return None if wanted == "float" else 4 if wanted == "int4" else 8


def _sizes(
    candidate: Candidate, device: DeviceName, bits: int, options: QuantizeOptions, activations: FloatPrecision
) -> tuple[int, ...]:
    """Return the block sizes to choose from: those that run well, or else those that run."""
    asked = (options.block_size,) if options.block_size else tuple(size for size in BLOCK_SIZES if size <= LARGEST)
    if not _multiplies(candidate):
        return asked
    effects = {
        size: [finding.effect for finding in _findings(candidate, device, bits, size, activations)] for size in asked
    }
    runs = [size for size in asked if not set(effects[size]) & set(REFUSED)]
    fewest = min((len(effects[size]) for size in runs), default=0)
    best = [size for size in runs if len(effects[size]) == fewest]
    return tuple(sorted(best, key=lambda size: (size != USUAL_SIZE, size)))


def _findings(
    candidate: Candidate, device: DeviceName, bits: int, size: int, activations: FloatPrecision
) -> list[Finding]:
    return findings(device, matmuls=[_matmul(candidate, bits, size, activations, device)])


def _matmul(candidate: Candidate, bits: int, size: int, activations: FloatPrecision, device: DeviceName) -> MatMul:
    rows, columns = candidate.shape
    preset = PRESETS[device]
    symmetric = candidate.symmetric or preset.symmetric or bits == 8 or candidate.looked_up
    return MatMul(bits, size, rows, columns, activations=activations, symmetric=symmetric)


def _multiplies(candidate: Candidate) -> bool:
    """Return False for an embedding that is only looked up."""
    return not candidate.looked_up or len(candidate.paths) > 1
