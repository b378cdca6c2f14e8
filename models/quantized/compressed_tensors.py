"""Weights in the formats of compressed-tensors, the library of vLLM and LLM Compressor.

A module's weight is stored as several tensors beside each other:

    pack-quantized         weight_packed (int32), weight_scale, weight_shape, weight_zero_point, weight_g_idx
    int-quantized          weight (int8), weight_scale, weight_zero_point
    float-quantized        weight (FP8), weight_scale
    naive-quantized        either of the last two
    mxfp8-quantized        weight (FP8), weight_scale (exponents in uint8)
    nvfp4-pack-quantized   weight_packed (uint8, two FP4 each), weight_scale (FP8), weight_global_scale
    mxfp4-pack-quantized   weight_packed (uint8, two FP4 each), weight_scale (exponents in uint8)

Where activations are quantized too, their scales are not read: intaglio computes with float activations.
"""

from collections.abc import Collection, Iterable
from pathlib import Path

from torch import Tensor

from ...errors import CheckpointError, UnsupportedError
from ...files.json_fields import JSONFields, shown
from ..storage.store import TensorStore
from ..weight_source import TensorInfo
from .compressed_settings import DENSE, Group, Kind, Settings, WeightScheme, read_settings
from .scaled.codes import E2M1_NIBBLES, E2M1_ZERO, WORD, ByteCodes, Codes, NibbleCodes, PackedCodes, Packing
from .scaled.stored import FLOAT8, FLOATS, INTEGERS, REMEDY, matrix, member
from .scaled.tables import Decode, IntegerZeroPoints, PackedZeroPoints, Table, as_float, block_table, power_of_two
from .scaled.weights import CodedWeight, Float8Weight, read_groups
from .stored import stored_bytes
from .weights import QuantizedWeight, QuantizedWeights

PACKED, BYTES, FLOAT, NAIVE = "pack-quantized", "int-quantized", "float-quantized", "naive-quantized"
MXFP8, NVFP4, MXFP4 = "mxfp8-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized"
FORMATS = (PACKED, BYTES, FLOAT, NAIVE, MXFP8, NVFP4, MXFP4, DENSE)

WEIGHT_PARTS = (
    "weight_packed",
    "weight_scale",
    "weight_zero_point",
    "weight_shape",
    "weight_g_idx",
    "weight_global_scale",
)
ACTIVATION_PARTS = tuple(
    f"{what}_{part}" for what in ("input", "output", "q", "k", "v") for part in ("scale", "zero_point", "global_scale")
)


def read_compressed_tensors(settings: JSONFields, store: TensorStore, folder: Path) -> QuantizedWeights:
    """Read the quantized weights of a checkpoint with ``quant_method`` compressed-tensors.

    Raises:
        CheckpointError: settings or tensors are damaged or contradict each other.
        UnsupportedError: a format is not read.
    """
    parsed = read_settings(settings)
    weights: dict[str, QuantizedWeight] = {}
    taken: set[str] = set()
    notes = set(parsed.notes)
    modules = _modules(store)
    parsed.check_time(modules)
    for module in modules:
        kind: Kind = "Embedding" if module.rpartition(".")[2] == "embed_tokens" else "Linear"
        group = parsed.group(module, kind)
        parts = [f"{module}.{part}" for part in WEIGHT_PARTS if f"{module}.{part}" in store.tensors]
        plain = store.tensors.get(f"{module}.weight")
        if group is not None and group.activations is not None:
            notes.add(f"the checkpoint quantizes {group.activations}; its activations are computed in float")
        if parts or (plain is not None and plain.dtype not in FLOATS):
            reader = _Module(folder, store, module, *_scheme(parsed, group, module, parts or [f"{module}.weight"]))
            weights[f"{module}.weight"] = reader.read()
            taken |= reader.names
        elif group is not None and plain is not None and _is_wanted(group, plain):
            raise CheckpointError(
                f"{parsed.where}: {shown(group.name)} in config_groups quantizes {module}, and {plain.file.name} "
                f"stores its weight as {plain.dtype}; add the module to ignore if it is not quantized"
            )
    if not weights and any(group.weights is not None for group in parsed.targets.values()):
        if all(group.format == DENSE for group in parsed.targets.values()):
            notes.add("quantization_config says dense: the weights are stored as floats, and are read as they are")
        else:
            raise CheckpointError(
                f"{parsed.where}: config_groups names no module that {folder} stores quantized; {REMEDY}"
            )
    taken |= {name for name in store.tensors if name.rpartition(".")[2] in ACTIVATION_PARTS}
    return QuantizedWeights(weights, frozenset(taken), tuple(sorted(notes)))


def _is_wanted(group: Group, plain: TensorInfo) -> bool:
    """Return True where a group quantizes the weights of its modules, and this one could be one."""
    return group.weights is not None and group.format != DENSE and len(plain.shape) == 2


def _modules(store: TensorStore) -> Collection[str]:
    """Return the modules that have a weight, or a part of a quantized one."""
    parts = {"weight", *WEIGHT_PARTS}
    split = (name.rpartition(".") for name in store.tensors)
    return dict.fromkeys(module for module, _, part in split if part in parts).keys()


def _scheme(settings: Settings, group: Group | None, module: str, parts: list[str]) -> tuple[str, WeightScheme]:
    """Return the format and the scheme of a module that is stored quantized."""
    if group is None or group.weights is None:
        raise CheckpointError(
            f"{settings.where}: {module} is stored quantized ({parts[0]}), and config_groups and ignore leave it out; "
            f"{REMEDY}"
        )
    if group.format not in FORMATS:
        raise UnsupportedError(
            f"{settings.where}: {module} has the format {shown(group.format)}, which is not read "
            f"({', '.join(FORMATS)} are); export the checkpoint that it was made from"
        )
    if group.format == DENSE:
        raise UnsupportedError(
            f"{settings.where}: {module} has {parts[0]} and the format dense, so that its weight is still to be "
            "quantized when it is used; save the checkpoint compressed (llmcompressor: save_compressed=True)"
        )
    return group.format, group.weights


class _Module:
    """The tensors of one module's quantized weight; ``names`` are those that were used."""

    def __init__(self, folder: Path, store: TensorStore, module: str, form: str, scheme: WeightScheme) -> None:
        self.folder = folder
        self.store = store
        self.module = module
        self.form = form
        self.scheme = scheme
        self.names: set[str] = set()

    def read(self) -> QuantizedWeight:
        if self.form in (NVFP4, MXFP4):
            return self._fp4()
        if self.form == MXFP8 or self.scheme.floating:
            return self._float8()
        return self._integers()

    def _member(self, part: str, dtypes: Iterable[str]) -> tuple[str, TensorInfo]:
        name = f"{self.module}.{part}"
        info = member(self.store, name, dtypes, self.form)
        self.names.add(name)
        return name, info

    def _has(self, part: str) -> bool:
        return f"{self.module}.{part}" in self.store.tensors

    def _unsupported(self, what: str) -> UnsupportedError:
        return UnsupportedError(f"{self.folder}: {self.module} has {what}; export the checkpoint that it was made from")

    def _block(self, shape: tuple[int, int]) -> tuple[int, int]:
        height, width = self.scheme.block
        return height or shape[0], min(width or shape[1], shape[1])

    def _words(self) -> str:
        """Return the format in words."""
        height, width = self.scheme.block
        blocks = {
            "tensor": "one scale",
            "channel": "a scale for each row",
            "block": f"blocks of {height} x {width}",
        }.get(self.scheme.strategy, f"groups of {width}")
        order = ", columns in another order" if self.scheme.reordered else ""
        kind = "FP" if self.scheme.floating else "int"
        return f"compressed-tensors {self.form}, {kind}{self.scheme.bits}, {blocks}{order}"

    def _integers(self) -> CodedWeight:
        bits = self.scheme.bits
        if bits > 8:
            raise self._unsupported(f"integers of {bits} bits, and up to 8 are read")
        source: Codes
        packing = None
        if self.form == PACKED:
            source, shape, info = self._packed()
            packing = source.packing
        else:
            name, info = self._member("weight", ("I8",))
            shape, source = matrix(info, name), ByteCodes(self.store, name, bits)
        block = self._block(shape)
        scale, _ = self._member("weight_scale", FLOATS)
        scales = block_table(self.store, scale, shape, block)
        return CodedWeight(
            info=TensorInfo(info.file, "F32", shape),
            format=self._words(),
            source=source,
            block_size=block[1],
            scales=scales,
            zero=self._zero_points(shape, block, packing),
            groups=self._groups(shape, block[1]),
            stored_bytes=stored_bytes(self.store.tensors[name] for name in self.names),
        )

    def _packed(self) -> tuple[PackedCodes, tuple[int, int], TensorInfo]:
        name, info = self._member("weight_packed", ("I32",))
        height, words = matrix(info, name)
        stated, shape_info = self._member("weight_shape", ("I64", "I32"))
        if shape_info.shape != (2,):
            raise CheckpointError(f"{shape_info.file}: tensor {stated} is not two numbers; {REMEDY}")
        shape = self.store.read(stated).tolist()
        fits = shape[0] == height and shape[1] > 0
        packings = list(_packings(self.scheme.bits, shape[1], words)) if fits else []
        if not packings:
            raise CheckpointError(
                f"{info.file}: tensor {name} has the shape {[height, words]}, and {stated} says {shape} in "
                f"{self.scheme.bits} bits; {REMEDY}"
            )
        if len(packings) > 1:
            raise UnsupportedError(
                f"{info.file}: tensor {name} has {words} words for {shape[1]} codes of {self.scheme.bits} bits, which "
                "versions of compressed-tensors pack in two ways; export the checkpoint that it was made from"
            )
        return PackedCodes(self.store, name, packings[0]), (height, shape[1]), info

    def _zero_points(self, shape: tuple[int, int], block: tuple[int, int], packing: Packing | None) -> Table | int:
        bits, part = self.scheme.bits, "weight_zero_point"
        if not self._has(part) and self.scheme.symmetric:
            return 1 << (bits - 1)
        name, info = self._member(part, INTEGERS)
        if packing is None or info.dtype != "I32" or self.scheme.strategy not in ("group", "channel"):
            return IntegerZeroPoints(block_table(self.store, name, shape, block), bits)
        columns = -(-shape[1] // block[1])
        if info.shape != (packing.count(shape[0]), columns):
            raise CheckpointError(
                f"{info.file}: tensor {name} has the shape {list(info.shape)}, which does not hold {bits}-bit zero "
                f"points of {shape[0]:,} x {columns:,} groups; {REMEDY}"
            )
        return PackedZeroPoints(self.store, name, packing)

    def _groups(self, shape: tuple[int, int], width: int) -> Tensor | None:
        if not self._has("weight_g_idx") and not self.scheme.reordered:
            return None
        name, info = self._member("weight_g_idx", ("I32", "I64"))
        groups = read_groups(self.store, name, shape[1], -(-shape[1] // width), width)
        if groups is not None and not self.scheme.reordered:
            raise CheckpointError(
                f"{info.file}: tensor {name} orders columns by group, and actorder in config.json does not; {REMEDY}"
            )
        return groups

    def _float8(self) -> Float8Weight:
        if self.scheme.bits != 8:
            raise self._unsupported(f"floats of {self.scheme.bits} bits in the format {self.form}, and 8 bits are read")
        name, info = self._member("weight", FLOAT8)
        shape = matrix(info, name)
        block = self._block(shape)
        exponents = self.form == MXFP8
        scale, _ = self._member("weight_scale", ("U8", "F8_E8M0") if exponents else FLOATS)
        scales = block_table(self.store, scale, shape, block, _exponents(self.store, scale) if exponents else as_float)
        if self._has("weight_zero_point"):
            zero, zero_info = self._member("weight_zero_point", (*FLOATS, *FLOAT8, *INTEGERS))
            if bool(as_float(self.store.read(zero)).any()):
                raise UnsupportedError(
                    f"{zero_info.file}: tensor {zero} has zero points, which FP8 has none of; export the checkpoint "
                    "that it was made from"
                )
        return Float8Weight(
            info=TensorInfo(info.file, "F32", shape),
            format=self._words(),
            stored_bytes=stored_bytes(self.store.tensors[name] for name in self.names),
            store=self.store,
            name=name,
            width=block[1],
            scales=scales,
        )

    def _fp4(self) -> CodedWeight:
        name, info = self._member("weight_packed", ("U8",))
        height, half = matrix(info, name)
        shape = (height, 2 * half)
        block = self._block(shape)
        if self.form == MXFP4:
            scale, _ = self._member("weight_scale", ("U8", "F8_E8M0"))
            inner = _exponents(self.store, scale)
            whole: Tensor | float = 1.0
        else:
            scale, _ = self._member("weight_scale", ("F8_E4M3", *FLOATS))
            whole, inner = self._global_scale(), as_float

        def decode(stored: Tensor) -> Tensor:
            return inner(stored) / whole * 0.5  # the codes are doubled

        return CodedWeight(
            info=TensorInfo(info.file, "F32", shape),
            format=self._words(),
            source=NibbleCodes(self.store, name, 5, E2M1_NIBBLES),
            block_size=block[1],
            scales=block_table(self.store, scale, shape, block, decode),
            zero=E2M1_ZERO,
            stored_bytes=stored_bytes(self.store.tensors[name] for name in self.names),
        )

    def _global_scale(self) -> Tensor | float:
        if not self._has("weight_global_scale") and not self.scheme.nested:
            return 1.0
        name, info = self._member("weight_global_scale", FLOATS)
        if info.shape not in ((), (1,)):
            raise CheckpointError(f"{info.file}: tensor {name} is not one number; {REMEDY}")
        whole = as_float(self.store.read(name)).reshape(())
        if not bool(whole.isfinite()) or float(whole) == 0:
            raise CheckpointError(f"{info.file}: tensor {name} is {float(whole)}, not a scale; {REMEDY}")
        return whole


def _packings(bits: int, codes: int, words: int) -> tuple[Packing, ...]:
    """Return the ways in which so many words hold codes.

    Older versions of the library pack whole codes into a word, newer ones pack 3, 5, 6 and 7 bits densely.
    """
    ways = (Packing(bits, dense=False), Packing(bits, dense=True))
    found = tuple(one for one in ways if one.count(codes) == words)
    return found[:1] if WORD % bits == 0 or words == 1 else found


def _exponents(store: TensorStore, name: str) -> Decode:
    return as_float if store.tensors[name].dtype == "F8_E8M0" else power_of_two
