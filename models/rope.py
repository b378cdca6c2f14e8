"""Rotary position embeddings (Su et al., 2021) and their six scalings.

default, linear (Chen et al., 2023), dynamic NTK, yarn (Peng et al., 2023), longrope (Ding et al., 2024) and llama3
(Llama 3.1). The formulas and the order of their float32 operations follow transformers, so that angles agree to the
last bit even at positions far out, where a rounding of the frequency is multiplied by the position.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, UnsupportedError
from ..files.json_fields import is_number, shown

RopeType = Literal["default", "linear", "dynamic", "yarn", "longrope", "llama3"]

_KEYS: Mapping[RopeType, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    # transformers' dynamic NTK reads the original length from max_position_embeddings, never from its own key.
    "dynamic": frozenset({"factor", "original_max_position_embeddings"}),
    "yarn": frozenset(
        {"factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale"}
        | {"mscale_all_dim", "truncate"}
    ),
    "longrope": frozenset(
        {"factor", "original_max_position_embeddings", "attention_factor", "short_factor", "long_factor"}
    ),
    "llama3": frozenset({"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"}),
}
MOST = 1e15
"""Every number of a rotary embedding is below; the largest published base is 1e12. float32 holds its powers."""

IMAGE_KEYS = frozenset({"mrope_section"})
"""How an image's axes share the frequencies; it changes nothing, as a text's positions are equal on all axes."""

_NEEDED: Mapping[RopeType, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}


@dataclass(frozen=True)
class RopeConfig:
    """A rotary embedding: its type, base and scaling. Lengths are in tokens."""

    type: RopeType
    theta: float
    max_position_embeddings: int
    original_max_position_embeddings: int
    factor: float = 1.0
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()

    @property
    def length_dependent(self) -> bool:
        """Return true if the frequencies depend on the sequence's length; they then fit in no table by position."""
        return self.type in ("dynamic", "longrope")

    def context_length(self, max_position_embeddings: int) -> int:
        """Return the longest sequence, in tokens, that the scaling is meant for.

        Qwen2 configs with yarn keep the unscaled length in ``max_position_embeddings``; dynamic NTK exists to go past
        it. The other types are written with the scaled length.
        """
        if self.type == "dynamic":
            return int(self.factor * max_position_embeddings)
        if self.type == "yarn":
            return max(max_position_embeddings, int(self.factor * self.original_max_position_embeddings))
        return max_position_embeddings


def parse_rope(config: Mapping[str, Any], max_positions: int, head_dim: int, where: str) -> RopeConfig:
    """Read ``rope_parameters`` (transformers 5) or ``rope_theta`` and ``rope_scaling`` (transformers 4).

    Raises:
        UnsupportedError: a type or a key is unknown.
        CheckpointError: a value is missing or of the wrong type.
    """
    name, given = _given(config, where)
    # A null means "not given", but for truncate, which transformers takes for false.
    values: dict[str, Any] = {key: value for key, value in given.items() if value is not None or key == "truncate"}
    kind = values.pop("rope_type", None)
    old_kind = values.pop("type", None)
    kind = _type(kind or old_kind or "default", f"{where}: {name}")
    theta = values.pop("rope_theta", None) or config.get("rope_theta") or 10_000.0
    if not _positive(theta) or theta <= 1:
        raise CheckpointError(f"{where}: rope_theta is {shown(theta)}, expected a number above 1; mend config.json")
    if values.pop("partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedError(f"{where}: {name}: partial_rotary_factor other than 1 is not part of these families")
    known = _KEYS[kind] if kind != "default" else IMAGE_KEYS.union(*_KEYS.values())
    unknown = [f"{key} = {shown(value)}" for key, value in values.items() if key not in known]
    if unknown:
        keys, them = ("keys", "them") if len(unknown) > 1 else ("key", "it")
        raise UnsupportedError(
            f"{where}: {name}: unknown {keys} {', '.join(unknown)} for the type {kind!r}; "
            f"remove {them} if the frequencies do not depend on {them}"
        )
    if kind == "default":
        values = {}
    for key in _NEEDED[kind]:
        if key not in values:
            raise CheckpointError(f"{where}: {name}: {key} is missing, the type {kind!r} needs it; mend config.json")
    for key in ("short_factor", "long_factor"):
        if key in values:
            values[key] = _factors(values[key], key, head_dim // 2, f"{where}: {name}")
    for key, value in values.items():
        if key == "truncate":
            if not isinstance(value, bool):
                raise CheckpointError(
                    f"{where}: {name}: truncate is {shown(value)}, expected true or false; mend config.json"
                )
        elif not isinstance(value, tuple) and not _positive(value):
            raise CheckpointError(
                f"{where}: {name}: {key} is {shown(value)}, expected a positive number; mend config.json"
            )
    # transformers: a top-level original length wins over the one among the rope parameters.
    original = config.get("original_max_position_embeddings") or values.pop("original_max_position_embeddings", None)
    values.pop("original_max_position_embeddings", None)
    if kind == "dynamic" or original is None:
        original = max_positions
    elif not _positive(original) or original < 2:
        raise CheckpointError(
            f"{where}: original_max_position_embeddings is {shown(original)}, expected a whole number of at least 2; "
            "mend config.json"
        )
    if kind == "longrope" and "factor" not in values:
        values["factor"] = max_positions / original
    return RopeConfig(
        type=kind,
        theta=float(theta),
        max_position_embeddings=max_positions,
        original_max_position_embeddings=int(original),
        **values,
    )


def _given(config: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """Return the key that describes the scaling, and its object; the two keys, if both are given, must agree."""
    names = [name for name in ("rope_parameters", "rope_scaling") if config.get(name)]
    for name in names:
        if not isinstance(config[name], dict):
            raise CheckpointError(f"{where}: {name} is {shown(config[name])}, expected an object; mend config.json")
    if not names:
        return "rope_scaling", {}
    plain = [{**config[name], "type": None, "rope_theta": None} for name in names]
    for name, values in zip(names, plain, strict=True):
        values["rope_type"] = config[name].get("rope_type") or config[name].get("type")
    if any(values != plain[0] for values in plain):
        raise CheckpointError(
            f"{where}: rope_parameters and rope_scaling contradict each other; remove the one that does not hold"
        )
    return names[0], config[names[0]]


def _type(value: object, where: str) -> RopeType:
    for known in _KEYS:
        if value == known:
            return known
    raise UnsupportedError(f"{where} has the type {shown(value)}; supported are {', '.join(_KEYS)}")


def _positive(value: Any) -> bool:
    return is_number(value) and 0 < value < MOST


def _factors(value: object, key: str, count: int, where: str) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != count or not all(_positive(v) for v in value):
        raise CheckpointError(
            f"{where}: {key} must be a list of {count} positive numbers, half of head_dim; mend config.json"
        )
    return tuple(float(v) for v in value)


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> tuple[Tensor, Tensor, float]:
    """Compute the frequencies in radians per position, and the factor on cos and sin.

    Returns:
        frequencies [E/2] for short sequences, frequencies [E/2] for long ones (they differ for longrope only), factor.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).to(torch.float) / head_dim
    plain = 1.0 / (rope.theta**exponents)
    match rope.type:
        case "default" | "dynamic":
            return plain, plain, 1.0
        case "linear":
            return plain / rope.factor, plain / rope.factor, 1.0
        case "llama3":
            scaled = _llama3(plain, rope)
            return scaled, scaled, 1.0
        case "yarn":
            scaled = _yarn(rope, head_dim)
            return scaled, scaled, _yarn_attention_factor(rope)
        case "longrope":
            short = 1.0 / (torch.tensor(rope.short_factor, dtype=torch.float) * rope.theta**exponents)
            long = 1.0 / (torch.tensor(rope.long_factor, dtype=torch.float) * rope.theta**exponents)
            factor = rope.attention_factor
            if factor is None:
                grown = math.log(rope.factor) / math.log(rope.original_max_position_embeddings)
                factor = 1.0 if rope.factor <= 1.0 else math.sqrt(1 + grown)
            return short, long, factor


def _llama3(plain: Tensor, rope: RopeConfig) -> Tensor:
    length = rope.original_max_position_embeddings
    wavelength = 2 * math.pi / plain
    low, high = length / rope.low_freq_factor, length / rope.high_freq_factor
    scaled = torch.where(wavelength > low, plain / rope.factor, plain)
    smooth = (length / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    between = (1 - smooth) * scaled / rope.factor + smooth * scaled
    return torch.where((wavelength >= high) & (wavelength <= low), between, scaled)


def _yarn(rope: RopeConfig, dim: int) -> Tensor:
    def correction(rotations: float) -> float:
        turns = rope.original_max_position_embeddings / (rotations * 2 * math.pi)
        return (dim * math.log(turns)) / (2 * math.log(rope.theta))

    low, high = correction(rope.beta_fast), correction(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    ramp = torch.clamp((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low), 0, 1)
    positions = rope.theta ** (torch.arange(0, dim, 2).to(torch.float) / dim)
    extrapolated, interpolated = 1.0 / positions, 1.0 / (rope.factor * positions)
    keep = 1 - ramp
    return interpolated * (1 - keep) + extrapolated * keep


def _yarn_attention_factor(rope: RopeConfig) -> float:
    def mscale(weight: float) -> float:
        return 1.0 if rope.factor <= 1 else 0.1 * weight * math.log(rope.factor) + 1.0

    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return mscale(rope.mscale) / mscale(rope.mscale_all_dim)
    return mscale(1.0)


class RotaryEmbedding(nn.Module):
    """cos and sin for positions, at most one float32 rounding away from transformers' tables."""

    inv_freq: Tensor
    long_inv_freq: Tensor

    def __init__(self, rope: RopeConfig, head_dim: int) -> None:
        super().__init__()
        self.rope = rope
        short, long, self.attention_factor = inverse_frequencies(rope, head_dim)
        self.register_buffer("inv_freq", short, persistent=False)
        if rope.type == "longrope":
            self.register_buffer("long_inv_freq", long, persistent=False)
        self.exponent = head_dim / (head_dim - 2) if head_dim > 2 else 1.0

    def frequencies(self, length_B: Tensor) -> Tensor:
        """Return radians per position for sequences of ``length_B`` tokens: [1, 1, E/2], or [B, 1, E/2] if they differ.

        transformers uses the length of the longest sequence for the whole batch; here each sequence has its own, so
        that its result does not depend on the rest of the batch.
        """
        rope = self.rope
        if rope.type == "longrope":
            long = (length_B > rope.original_max_position_embeddings)[:, None, None]
            return torch.where(long, self.long_inv_freq, self.inv_freq)
        if rope.type == "dynamic":
            # theta' = theta * s^(E/(E-2)), so each frequency theta^(-2i/E) is multiplied by s^(-2i/(E-2)).
            length = length_B.clamp(min=rope.max_position_embeddings).to(torch.float)
            stretch = rope.factor * length / rope.max_position_embeddings - (rope.factor - 1)
            base = rope.theta * stretch**self.exponent
            exponents = torch.arange(0, 2 * self.inv_freq.shape[0], 2, dtype=torch.float) / (2 * self.inv_freq.shape[0])
            return 1.0 / base[:, None, None] ** exponents
        return self.inv_freq[None, None]

    def forward(self, positions_BS: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return cos and sin [B, S, E/2], float32, for each new token's position and each sequence's whole length."""
        angles = positions_BS[..., None].to(torch.float) * self.frequencies(length_B)
        return angles.cos() * self.attention_factor, angles.sin() * self.attention_factor

    def table(self, rows: int) -> tuple[Tensor, Tensor]:
        """Return cos and sin [rows, E/2] for the positions 0 to rows - 1; not for ``length_dependent`` types."""
        assert not self.rope.length_dependent
        positions = torch.arange(rows)[None]
        cos, sin = self(positions, torch.tensor([rows]))
        return cos[0], sin[0]
