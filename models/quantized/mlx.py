"""Weights that MLX quantized: codes of 1 to 8 bits with a scale and a bias for each group of a row, or small floats.

config.json has its own key for it, ``quantization``: ``group_size``, ``bits`` and ``mode``, and by the names of modules
others for one of them, or false. A module is quantized where it has scales.

    MODULE.weight    uint32 [N, K * bits / 32]: the codes of a row one after another, the lowest bits first
    MODULE.scales    float16, bfloat16 or float32 [N, K / group_size]; uint8 in the modes of small floats
    MODULE.biases    the same; only in the mode "affine"

A number is ``scale * code + bias`` in the mode "affine"; ``scale * float`` in "mxfp4" and "nvfp4" (floats of 4 bits,
E2M1, whose doubles are whole numbers) and "mxfp8" (of 8 bits, E4M3). Source: the documentation of
``mlx.core.quantize``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import CheckpointError, UnsupportedError
from ...files.json_fields import JSONFields
from ..storage.store import TensorStore
from ..weight_source import TensorInfo
from .mlx_codes import MLXCodes, MLXFloat8Weight, Multiples, Rest, e4m3, halved
from .scaled.codes import E2M1_NIBBLES, E2M1_ZERO
from .scaled.tables import Decode, as_float, block_table, power_of_two
from .scaled.weights import CodedWeight
from .stored import AGAIN, expect, stored_bytes
from .weights import QuantizedWeight, QuantizedWeights

KEY = "quantization"
SCALES, BIASES = ".scales", ".biases"
FLOATS = ("F16", "BF16", "F32")
_SETTINGS = frozenset({"group_size", "bits", "mode"})


@dataclass(frozen=True)
class Mode:
    """What a mode allows, the default first, and how it stores scales."""

    bits: tuple[int, ...]
    group_sizes: tuple[int, ...]
    scales: tuple[str, ...]
    decode: Decode


MODES: Mapping[str, Mode] = {
    "affine": Mode((4, 1, 2, 3, 5, 6, 8), (64, 32, 128), FLOATS, as_float),
    "mxfp4": Mode((4,), (32,), ("U8",), halved(power_of_two)),
    "nvfp4": Mode((4,), (16,), ("U8",), halved(e4m3)),
    "mxfp8": Mode((8,), (32,), ("U8",), power_of_two),
}


def read_mlx(settings: JSONFields, store: TensorStore, folder: Path) -> QuantizedWeights:
    """Read the weights that MLX quantized; errors as ``Reader``."""
    overrides = _overrides(settings)
    modules = {name.removesuffix(SCALES) for name in store.tensors if name.endswith(SCALES)}
    if not modules:
        raise CheckpointError(f"{settings.where} is set, and no tensor NAME{SCALES} is stored; {AGAIN}")
    for module, override in overrides.items():
        if (override is None) == (module in modules):
            what = "is not to be quantized, and has" if override is None else "is to be quantized, and has no"
            raise CheckpointError(f"{settings.where}: the module {module[:200]} {what} scales; {AGAIN}")
    weights: dict[str, QuantizedWeight] = {}
    stored: set[str] = set()
    for module in sorted(modules):
        override = overrides.get(module)
        tensors, weights[f"{module}.weight"] = _weight(store, module, settings if override is None else override)
        stored |= set(tensors)
    for name, info in store.tensors.items():
        if name not in stored and (info.dtype == "U32" or name.endswith(BIASES)):
            raise CheckpointError(f"{info.file}: tensor {name} ({info.dtype}) belongs to no quantized weight; {AGAIN}")
    return QuantizedWeights(weights, frozenset(stored))


def _overrides(settings: JSONFields) -> Mapping[str, JSONFields | None]:
    """Return the settings of single modules, None for one that is not quantized."""
    found: dict[str, JSONFields | None] = {}
    for key, value in settings.values.items():
        if key in _SETTINGS:
            continue
        if isinstance(value, dict):
            found[key] = override = JSONFields(value, f"{settings.where}: {key[:200]}")
            _refuse_unknown(override, set(value))
        elif value is False:
            found[key] = None
        elif value is not True:
            _refuse_unknown(settings, {key})
    return found


def _refuse_unknown(settings: JSONFields, keys: set[str]) -> None:
    if unknown := sorted(keys - _SETTINGS):
        raise UnsupportedError(
            f"{settings.where} has {unknown[0][:60]!r}, a setting of MLX that is not known here; export the checkpoint "
            "that it was made from"
        )


def _weight(store: TensorStore, module: str, settings: JSONFields) -> tuple[Mapping[str, TensorInfo], QuantizedWeight]:
    """Return one module's stored tensors by name, and its weight."""
    name = settings.text("mode") or "affine"
    mode = MODES.get(name)
    if mode is None:
        raise UnsupportedError(
            f"{settings.where}: mode {name[:60]!r} of {module} is not read (those that are: {', '.join(MODES)}); "
            "export the checkpoint that it was made from"
        )
    bits = _setting(settings, "bits", mode.bits)
    group_size = _setting(settings, "group_size", mode.group_sizes)
    scales = expect(store, module + SCALES, mode.scales, (None, None))
    height, groups = scales.shape
    width = groups * group_size
    weight = f"{module}.weight"
    stored = {
        weight: expect(store, weight, ("U32",), (height, width * bits // 32)),
        module + SCALES: scales,
    }
    if name == "affine":
        stored[module + BIASES] = expect(store, module + BIASES, FLOATS, (height, groups))
    shape = (height, width)
    info = TensorInfo(stored[weight].file, "F32", shape)
    what = f"MLX, {bits} bits" if name == "affine" else f"MLX, {name.upper()}"
    format, size = f"{what}, groups of {group_size}", stored_bytes(stored.values())
    table = block_table(store, module + SCALES, shape, (1, group_size), mode.decode)
    if name == "mxfp8":
        return stored, MLXFloat8Weight(info, format, size, store, weight, group_size, table)
    if name == "affine":
        biases = block_table(store, module + BIASES, shape, (1, group_size))
        points = Multiples(table, biases, 2**bits - 1)
        packed = MLXCodes(store, weight, bits)
        return stored, CodedWeight(info, format, size, packed, group_size, table, points, Rest(points))
    codes = MLXCodes(store, weight, bits, E2M1_NIBBLES)
    return stored, CodedWeight(info, format, size, codes, group_size, table, E2M1_ZERO)


def _setting(settings: JSONFields, key: str, allowed: tuple[int, ...]) -> int:
    value = settings.integer(key)
    if value is None:
        return allowed[0]  # as MLX
    if value not in allowed:
        raise settings.bad(key, f"one of {', '.join(map(str, sorted(allowed)))}")
    return value
