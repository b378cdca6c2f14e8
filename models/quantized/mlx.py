"""Weights that MLX quantized, mode "affine": codes of 2 to 8 bits, and a scale and a bias for each group of a row.

config.json has its own key for it, ``quantization``: ``group_size``, ``bits`` and ``mode``, and by the names of modules
others for one of them, or false. A module is quantized where it has scales.

    MODULE.weight    uint32 [N, K * bits / 32]: the codes of a row one after another, the lowest bits first
    MODULE.scales    float16, bfloat16 or float32 [N, K / group_size]
    MODULE.biases    the same

A number is ``scale * code + bias``. Source: the documentation of ``mlx.core.quantize``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...errors import CheckpointError, UnsupportedError
from ...files.json_fields import JSONFields
from ..storage.store import TensorStore
from ..weight_source import TensorInfo
from .stored import AGAIN, expect, finite, stored_bytes
from .weights import BlockParameters, QuantizedWeight, QuantizedWeights

KEY = "quantization"
BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)
AFFINE = "affine"
SCALES = ".scales"
FLOATS = ("F16", "BF16", "F32")
CHUNK = 1 << 22  # numbers that are decoded at a time
_SETTINGS = frozenset({"group_size", "bits", "mode"})


@dataclass(frozen=True)
class MLXWeight:
    """A weight [N, K] in groups; it is its own grid, whose offsets are the biases.

    Args:
        store: the stored tensors.
        module: the name of the module that has the weight.
        stored: the names of the tensors that it takes.
        info: its file, dtype F32 and shape.
        stored_bytes: the bytes that it takes.
        bits: of a code.
        block_size: numbers of a row that share a scale and a bias.
    """

    store: TensorStore
    module: str
    stored: tuple[str, ...]
    info: TensorInfo
    stored_bytes: int
    bits: int
    block_size: int
    order: Tensor | None = None

    @property
    def format(self) -> str:
        return f"MLX, {self.bits} bits, groups of {self.block_size}"

    @property
    def grid(self) -> "MLXWeight":
        return self

    def parameters(self) -> BlockParameters:
        rows = range(self.info.shape[0])
        scales = self._read(SCALES, rows)
        return BlockParameters(scales, torch.zeros_like(scales, dtype=torch.uint8), self._read(".biases", rows))

    def codes(self, rows: range) -> Tensor:
        return unpack(self.store.read(f"{self.module}.weight", rows), self.bits)

    def values(self, rows: range, columns: range) -> Tensor:
        read = torch.empty(len(rows), len(columns))
        step = max(1, CHUNK // self.info.shape[1])
        groups = torch.arange(columns.start, columns.stop) // self.block_size
        for start in range(rows.start, rows.stop, step):
            some = range(start, min(start + step, rows.stop))
            codes = self.codes(some)[:, columns.start : columns.stop]
            scales, biases = (self._read(part, some)[:, groups] for part in (SCALES, ".biases"))
            read[start - rows.start : some.stop - rows.start] = scales * codes + biases
        return read

    def _read(self, part: str, rows: range) -> Tensor:
        """Read scales or biases of some rows, float32 [n, groups]."""
        name = self.module + part
        return finite(self.store.read(name, rows), self.store.tensors[name], name)


def unpack(packed: Tensor, bits: int) -> Tensor:
    """Return the codes of rows of uint32 [n, words], uint8 [n, words * 32 / bits].

    Eight codes take as many bytes as a code has bits, and a row is one sequence of such bytes.
    """
    height = packed.shape[0]
    bytes_ = packed.view(torch.uint8).view(height, -1, bits)
    words = torch.zeros(bytes_.shape[:2], dtype=torch.int64)
    for index in range(bits):
        words |= bytes_[:, :, index].long() << (8 * index)
    codes = torch.empty(*words.shape, 8, dtype=torch.uint8)
    for index in range(8):
        codes[:, :, index] = (words >> (bits * index)) & ((1 << bits) - 1)
    return codes.view(height, -1)


def read_mlx(settings: JSONFields, store: TensorStore, folder: Path) -> QuantizedWeights:
    """Read the weights that MLX quantized; errors as ``Reader``."""
    overrides = _overrides(settings)
    modules = [name.removesuffix(SCALES) for name in store.tensors if name.endswith(SCALES)]
    if not modules:
        raise CheckpointError(f"{settings.where} is set, and no tensor NAME{SCALES} is stored; {AGAIN}")
    for module, override in overrides.items():
        if (override is None) == (module in modules):
            what = "is not to be quantized, and has" if override is None else "is to be quantized, and has no"
            raise CheckpointError(f"{settings.where}: the module {module[:200]} {what} scales; {AGAIN}")
    weights: dict[str, QuantizedWeight] = {}
    stored: set[str] = set()
    for module in modules:
        override = overrides.get(module)
        weight = _weight(store, module, settings if override is None else override)
        weights[f"{module}.weight"] = weight
        stored |= set(weight.stored)
    for name, info in store.tensors.items():
        if name not in stored and (info.dtype == "U32" or name.endswith(".biases")):
            raise CheckpointError(
                f"{info.file}: tensor {name} ({info.dtype}) belongs to a quantized weight without scales; {AGAIN}"
            )
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


def _weight(store: TensorStore, module: str, settings: JSONFields) -> MLXWeight:
    mode = settings.text("mode") or AFFINE
    if mode != AFFINE:
        raise UnsupportedError(
            f"{settings.where}: mode {mode[:60]!r} of {module} is not read, only {AFFINE}; export the checkpoint that "
            "it was made from"
        )
    bits, group_size = settings.integer("bits"), settings.integer("group_size")
    bits, group_size = 4 if bits is None else bits, 64 if group_size is None else group_size  # as MLX
    if bits not in BITS:
        raise settings.bad("bits", f"one of {', '.join(map(str, BITS))}")
    if group_size not in GROUP_SIZES:
        raise settings.bad("group_size", f"one of {', '.join(map(str, GROUP_SIZES))}")
    scales = expect(store, module + SCALES, FLOATS, (None, None))
    height, groups = scales.shape
    width = groups * group_size
    weight = f"{module}.weight"
    stored = {
        module + SCALES: scales,
        f"{module}.biases": expect(store, f"{module}.biases", FLOATS, (height, groups)),
        weight: expect(store, weight, ("U32",), (height, width * bits // 32)),
    }
    info = TensorInfo(stored[weight].file, "F32", (height, width))
    return MLXWeight(store, module, tuple(stored), info, stored_bytes(stored.values()), bits, group_size)
