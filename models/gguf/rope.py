"""RoPE of a GGUF file as ``rope_parameters`` of config.json.

llama3's scaling is not in the metadata: the conversion writes the factor of each frequency as a tensor, and the
parameters are found again from it.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import UnsupportedError
from ...files.json_fields import shown
from .parts import Metadata

Floats = npt.NDArray[np.float64]

LOW, HIGH = 1.0, 4.0
"""low_freq_factor and high_freq_factor of every published model."""
LENGTHS = tuple(2**power for power in range(6, 20))
"""Lengths that a model may have been trained with before it was scaled."""
TOLERANCE = 1e-5
"""The largest relative difference of factors, which the conversion computes in float32."""

SCALING = "rope.scaling."


def rope_parameters(metadata: Metadata, family: str, head_dim: int, factors: Floats | None) -> dict[str, Any]:
    """Return ``rope_parameters``.

    Args:
        factors: of the tensor ``rope_freqs.weight`` [head_dim / 2], by which each frequency is divided.

    Raises:
        CheckpointError, UnsupportedError: the metadata is contradictory, or a scaling cannot be expressed.
    """
    prefix = f"{family}.{SCALING}"
    theta = number(metadata, f"{family}.rope.freq_base") or 10_000.0
    kind = metadata.text(f"{prefix}type") or "none"
    scale = number(metadata, f"{prefix}factor") or number(metadata, f"{family}.rope.scale_linear")
    if factors is not None and not np.array_equal(factors, np.ones_like(factors)):
        if kind != "none" or scale not in (None, 1.0):
            raise UnsupportedError(
                f"{metadata.where}: the tensor rope_freqs.weight and {prefix}type {kind} scale RoPE both, which no "
                "config.json can say; use another file"
            )
        return {"rope_type": "llama3", "rope_theta": theta, **_llama3(factors, theta, head_dim, metadata.where)}
    if kind == "linear" or (kind == "none" and scale not in (None, 1.0)):
        return {"rope_type": "linear", "rope_theta": theta, "factor": scale or 1.0}
    if kind == "yarn":
        return {"rope_type": "yarn", "rope_theta": theta, **_yarn(metadata, prefix, scale)}
    if kind != "none":
        raise UnsupportedError(
            f"{metadata.where}: {prefix}type is {shown(kind)}, which is not supported; supported are none, linear and "
            "yarn"
        )
    return {"rope_type": "default", "rope_theta": theta}


def number(metadata: Metadata, key: str) -> float | None:
    """Return a number; a float32 as the shortest decimal that it stands for, such as 1e-06."""
    value = metadata.number(key)
    if value is None:
        return None
    short = np.float32(value)
    return float(str(short)) if float(short) == value else float(value)


def _yarn(metadata: Metadata, prefix: str, scale: float | None) -> dict[str, Any]:
    if scale is None:
        raise metadata.bad(f"{prefix}factor", "a number, for yarn")
    for key in ("attn_factor", "yarn_attn_factor", "yarn_ext_factor"):
        if number(metadata, f"{prefix}{key}") not in (None, 1.0):
            raise UnsupportedError(
                f"{metadata.where}: {prefix}{key} is {metadata.get(f'{prefix}{key}')}, and only 1.0 is supported"
            )
    found: dict[str, Any] = {"factor": scale}
    length = metadata.integer(f"{prefix}original_context_length", least=2)
    if length is not None:
        found["original_max_position_embeddings"] = length
    for key in ("beta_fast", "beta_slow"):
        if (value := number(metadata, f"{prefix}yarn_{key}")) is not None:
            found[key] = value
    return found


def _llama3(factors: Floats, theta: float, head_dim: int, where: str) -> dict[str, Any]:
    """Return llama3's parameters from the factors of the frequencies.

    Only ratios of the length and the two frequency factors show in them, so that the lower one is taken as 1.
    """
    wavelengths = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    factor = float(str(np.float32(factors.max())))
    if len(factors) == len(wavelengths) and factor > 1:
        for length, high in _candidates(factors, wavelengths, factor):
            expected = _factors(wavelengths, factor, length, high)
            if np.allclose(expected, factors, rtol=TOLERANCE, atol=0):
                return {
                    "factor": factor,
                    "low_freq_factor": LOW,
                    "high_freq_factor": high,
                    "original_max_position_embeddings": length,
                }
    raise UnsupportedError(
        f"{where}: the factors of the tensor rope_freqs.weight are not those of llama3's scaling, the only one that is "
        "read from such a tensor; use another file"
    )


def _candidates(factors: Floats, wavelengths: Floats, factor: float) -> Iterator[tuple[int, float]]:
    """Yield lengths and high_freq_factors, the likely ones first."""
    for length in LENGTHS:
        yield length, HIGH
    between = (factors > 1 + TOLERANCE) & (factors < factor * (1 - TOLERANCE))
    smooth = (1 / factors[between] - 1 / factor) / (1 - 1 / factor)
    for part, wavelength in zip(smooth, wavelengths[between], strict=True):
        yield max(2, round((part * (HIGH - LOW) + LOW) * wavelength)), HIGH
    if len(smooth) > 1:
        slope, intercept = np.polyfit(1 / wavelengths[between], smooth, 1)
        if intercept < 0 < slope:
            yield max(2, round(-slope / intercept)), round(1 - 1 / intercept, 4)


def _factors(wavelengths: Floats, factor: float, length: int, high: float) -> Floats:
    """Return what llama3's scaling divides each frequency by."""
    smooth = (length / wavelengths - LOW) / (high - LOW)
    between = 1 / ((1 - smooth) / factor + np.where(smooth == 0, 1e-30, smooth))
    scaled: Floats = np.where(wavelengths > length / LOW, factor, between)
    return np.where(wavelengths < length / high, 1.0, scaled)
