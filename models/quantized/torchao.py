"""Weights of TorchAO as transformers saves them in safetensors: the parts of a tensor subclass as tensors of their own.

A weight ``layer.weight`` is stored as ``layer._weight_qdata``, ``layer._weight_scale`` and so on; the file's metadata
has the class and its attributes as JSON under ``layer.weight`` (torchao.prototype.safetensors).

    Int8Tensor                 qdata int8 [N, K], scale, zero_point
    IntxUnpackedToInt8Tensor   the same, with numbers of 1 to 8 bits (target_dtype)
    Int4Tensor                 qdata [N, K / 2], two codes to a byte; scale [K / group, N]; zero_point [K / group, N], a
                               float that is added to the product of code and scale
    Float8Tensor               qdata FP8 [N, K], scale

Scales are for blocks of ``block_size`` [rows, columns].
"""

from collections.abc import Iterable
from pathlib import Path

from safetensors import safe_open

from ...errors import CheckpointError, UnsupportedError
from ...files.json_fields import JSONFields, shown
from ...files.json_file import parse_json
from ...files.library_errors import library_errors
from ..storage.store import TensorStore
from ..weight_source import TensorInfo
from .scaled.codes import SIGNED_NIBBLES, ByteCodes, NibbleCodes
from .scaled.stored import FLOAT8, FLOATS, REMEDY, matrix, member
from .scaled.tables import IntegerZeroPoints, block_table
from .scaled.weights import CodedWeight, Float8Weight
from .stored import stored_bytes
from .weights import QuantizedWeight, QuantizedWeights

INT8, INTX, INT4, FLOAT = "Int8Tensor", "IntxUnpackedToInt8Tensor", "Int4Tensor", "Float8Tensor"
CLASSES = (INT8, INTX, INT4, FLOAT)
PLAIN = "Tensor"
MOST_BLOCK = 2**24
ACTIVATIONS = ("act_quant_kwargs", "activation_quantization")
NOTE = "TorchAO quantizes activations too where this checkpoint runs; they are computed in float"


def read_torchao(settings: JSONFields, store: TensorStore, folder: Path) -> QuantizedWeights:
    """Read the weights of TorchAO's tensor classes; errors as ``Reader``."""
    try:
        return _read(settings, store, folder)
    except ValueError as error:  # of JSONFields, in a file's metadata
        raise CheckpointError(f"{error}; {REMEDY}") from None


def _read(settings: JSONFields, store: TensorStore, folder: Path) -> QuantizedWeights:
    weights: dict[str, QuantizedWeight] = {}
    taken: set[str] = set()
    notes: set[str] = set()
    for entry in _entries(store):
        subclass = _Subclass(store, entry)
        weights[entry.name] = subclass.read()
        taken |= subclass.names
        taken |= subclass.activations()
        if subclass.quantizes_activations():
            notes.add(NOTE)
    for name, info in store.tensors.items():
        if name not in taken and name.rpartition(".")[2].startswith("_weight_"):
            raise CheckpointError(
                f"{info.file}: tensor {name} is a part of a quantized weight, which the file's metadata does not "
                f"describe; {REMEDY}"
            )
    if not weights:
        raise CheckpointError(
            f"{settings.where} says torchao, and the metadata of {folder}'s weights names none of its tensors; {REMEDY}"
        )
    return QuantizedWeights(weights, frozenset(taken), tuple(sorted(notes)))


class _Entry:
    """What a file's metadata says of one weight: its class and the class' attributes."""

    def __init__(self, name: str, described: JSONFields) -> None:
        self.name = name
        self.kind = described.text("_type") or ""
        self.attributes = described.fields("_data") or JSONFields({}, described.where)


def _entries(store: TensorStore) -> Iterable[_Entry]:
    """Yield the weights that are not plain tensors."""
    for file in sorted({info.file for info in store.tensors.values()}):
        metadata = _metadata(file)
        for name in sorted(metadata):
            if "." not in name:
                continue
            try:
                described = parse_json(metadata[name])
            except (ValueError, RecursionError):
                described = None
            if not isinstance(described, dict):
                raise CheckpointError(f"{file}: the metadata of {shown(name)} is not a JSON object; {REMEDY}")
            entry = _Entry(name, JSONFields(described, f"{file}: metadata of {name}"))
            if entry.kind != PLAIN:
                yield entry


def _metadata(file: Path) -> dict[str, str]:
    def refusal(why: str) -> CheckpointError:
        return CheckpointError(f"{file}: metadata cannot be read ({why}); {REMEDY}")

    with library_errors(refusal), safe_open(file, "pt") as opened:
        return opened.metadata() or {}


class _Subclass:
    """The tensors of one weight; ``names`` are those that were used."""

    def __init__(self, store: TensorStore, entry: _Entry) -> None:
        self.store = store
        self.entry = entry
        module, _, parameter = entry.name.rpartition(".")
        self.prefix = f"{module}._{parameter}_"
        self.names: set[str] = set()

    def has(self, part: str) -> bool:
        return self.prefix + part in self.store.tensors

    def activations(self) -> set[str]:
        """Return the tensors that quantize activations."""
        parts = (f"{self.prefix}{part}" for part in ("act_quant_scale", "act_quant_zero_point"))
        return {name for name in parts if name in self.store.tensors}

    def quantizes_activations(self) -> bool:
        """Return True where TorchAO computes with quantized activations."""
        dtype = self.entry.attributes.fields("activation_dtype")
        float8 = dtype is not None and (dtype.text("_data") or "").startswith("float8")
        return float8 or bool(self.activations()) or any(key in self.entry.attributes for key in ACTIVATIONS)

    def read(self) -> QuantizedWeight:
        kind, attributes = self.entry.kind, self.entry.attributes
        if kind not in CLASSES:
            raise UnsupportedError(
                f"{attributes.where}: TorchAO's {shown(kind)} is not read ({', '.join(CLASSES)} are); export the "
                "checkpoint that it was made from"
            )
        if self.has("act_pre_scale"):
            raise UnsupportedError(
                f"{attributes.where}: act_pre_scale multiplies the activations (as AWQ and SmoothQuant do), which is "
                "not read; export the checkpoint that it was made from"
            )
        if kind == FLOAT:
            return self._floats()
        return self._nibbles() if kind == INT4 else self._bytes()

    def _member(self, part: str, dtypes: Iterable[str]) -> tuple[str, TensorInfo]:
        name = self.prefix + part
        info = member(self.store, name, dtypes, f"TorchAO's {self.entry.kind}")
        self.names.add(name)
        return name, info

    def _block(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the rows and columns that share a scale; FP8 leaves them out for one scale."""
        sizes = self.entry.attributes.integers("block_size", least=1, most=MOST_BLOCK)
        if not sizes and self.entry.kind == FLOAT:
            return shape
        if sizes is None or len(sizes) != 2 or shape[0] % sizes[0] or shape[1] % sizes[1]:
            raise self.entry.attributes.bad("block_size", f"two numbers that divide {list(shape)}")
        return sizes[0], sizes[1]

    def _words(self, numbers: str, shape: tuple[int, int], block: tuple[int, int]) -> str:
        if block == shape:
            blocks = "one scale"
        elif block[0] > 1:
            blocks = f"blocks of {block[0]} x {block[1]}"
        else:
            blocks = "a scale for each row" if block[1] == shape[1] else f"groups of {block[1]}"
        return f"TorchAO {numbers}, {blocks}"

    def _bytes(self) -> CodedWeight:
        name, info = self._member("qdata", ("I8",))
        shape = matrix(info, name)
        block = self._block(shape)
        bits = 8 if self.entry.kind == INT8 else self._target_bits()
        scale, _ = self._member("scale", FLOATS)
        zero: IntegerZeroPoints | int = 1 << (bits - 1)
        if self.has("zero_point"):
            zeros, _ = self._member("zero_point", ("I8", *FLOATS))
            zero = IntegerZeroPoints(block_table(self.store, zeros, shape, block), bits)
        return CodedWeight(
            info=TensorInfo(info.file, "F32", shape),
            format=self._words(f"int{bits}", shape, block),
            source=ByteCodes(self.store, name, bits),
            block_size=block[1],
            scales=block_table(self.store, scale, shape, block),
            zero=zero,
            stored_bytes=stored_bytes(self.store.tensors[name] for name in self.names),
        )

    def _target_bits(self) -> int:
        target = self.entry.attributes.fields("target_dtype")
        value = None if target is None else target.text("_data")
        kinds = {f"int{bits}": bits for bits in range(1, 9)}
        if value not in kinds:
            raise self.entry.attributes.bad("target_dtype", "one of int1 to int8")
        return kinds[value]

    def _nibbles(self) -> CodedWeight:
        name, info = self._member("qdata", ("I8", "U8"))
        height, half = matrix(info, name)
        shape = (height, 2 * half)
        block = self._block(shape)
        if block[0] != 1:
            raise self.entry.attributes.bad("block_size", "[1, columns]")
        scale, _ = self._member("scale", FLOATS)
        offset, _ = self._member("zero_point", FLOATS)
        return CodedWeight(
            info=TensorInfo(info.file, "F32", shape),
            format=self._words("int4", shape, block),
            source=NibbleCodes(self.store, name, 4, SIGNED_NIBBLES),
            block_size=block[1],
            scales=block_table(self.store, scale, shape, block, transposed=True),
            zero=8,
            offsets=block_table(self.store, offset, shape, block, transposed=True),
            stored_bytes=stored_bytes(self.store.tensors[name] for name in self.names),
        )

    def _floats(self) -> Float8Weight:
        name, info = self._member("qdata", FLOAT8)
        shape = matrix(info, name)
        block = self._block(shape)
        scale, _ = self._member("scale", FLOATS)
        return Float8Weight(
            info=TensorInfo(info.file, "F32", shape),
            format=self._words("FP8", shape, block),
            stored_bytes=stored_bytes(self.store.tensors[name] for name in self.names),
            store=self.store,
            name=name,
            width=block[1],
            scales=block_table(self.store, scale, shape, block),
        )
