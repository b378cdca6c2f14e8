"""Weights in NF4 or FP4: 4-bit indices into a codebook of 16 numbers, times a float32 absmax for each block.

A weight [N, K] is flattened before it is cut into blocks, so that a block may run across rows. A byte has two indices,
the first one in the high half. With double quantization the absmax values less their mean are quantized again, to 8-bit
indices into a codebook of 256 numbers (``nested_quant_map``) in blocks of their own.

    NAME                                     the packed indices, [bytes, 1] in any dtype (``bnb_4bit_quant_storage``)
    NAME.absmax                              float32 [blocks]; uint8 with double quantization
    NAME.quant_map                           float32 [16]: the codebook
    NAME.nested_absmax, .nested_quant_map    float32 [nested blocks], [256]
    NAME.quant_state.bitsandbytes__nf4       JSON as uint8: shape, blocksize, nested_blocksize, nested_offset ...

The numbers are those of ``bitsandbytes.functional.dequantize_4bit`` in float32.
"""

from dataclasses import dataclass
from math import ceil, prod

import torch
from torch import Tensor

from ...errors import CheckpointError
from ...files.json_fields import JSONFields
from ...files.json_file import parse_json
from ..dtypes import ITEM_BYTES
from ..storage.store import TensorStore
from ..weight_source import TensorInfo
from .stored import AGAIN, expect, finite, stored_bytes
from .weights import BlockGrid

STATE = ".quant_state.bitsandbytes__"
BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
STORAGE = ("U8", "I8", "BF16", "F16", "F32")
MAX_STATE_BYTES = 1 << 16
CHUNK = 1 << 22  # numbers that are decoded at a time

# The quantiles of a normal distribution (QLoRA, appendix E), and the numbers of one sign, 2 exponent and 1 mantissa
# bits, divided by the greatest.
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
_FP4 = (0.0, 0.0625 / 12, 8 / 12, 1.0, 4 / 12, 6 / 12, 2 / 12, 3 / 12)
FP4 = (*_FP4, *(-number for number in _FP4))
CODEBOOKS = {"nf4": NF4, "fp4": FP4}
QUANT_TYPES = tuple(CODEBOOKS)


@dataclass(frozen=True)
class FourBitWeight:
    """A weight [N, K] in 4 bits.

    Args:
        store: the stored tensors.
        name: that of the weight.
        stored: the names of all tensors that it takes.
        info: its file, dtype F32 and shape.
        stored_bytes: the bytes that it takes.
        quant_type: "nf4" or "fp4".
        block_size: numbers that share an absmax.
        nested: the blocks of the absmax values, None without double quantization.
    """

    store: TensorStore
    name: str
    stored: tuple[str, ...]
    info: TensorInfo
    stored_bytes: int
    quant_type: str
    block_size: int
    nested: "Nested | None"

    @property
    def format(self) -> str:
        doubly = ", double quantization" if self.nested is not None else ""
        return f"bitsandbytes {self.quant_type.upper()}, blocks of {self.block_size}{doubly}"

    @property
    def grid(self) -> BlockGrid | None:
        return None

    @property
    def codebook(self) -> Tensor:
        """The numbers of the indices, float32 [16]."""
        return torch.tensor(CODEBOOKS[self.quant_type])

    def values(self, rows: range, columns: range) -> Tensor:
        width = self.info.shape[1]
        read = torch.empty(len(rows), len(columns))
        step = max(1, CHUNK // width)
        for start in range(rows.start, rows.stop, step):
            stop = min(start + step, rows.stop)
            numbers = self._numbers(start * width, stop * width).view(stop - start, width)
            read[start - rows.start : stop - rows.start] = numbers[:, columns.start : columns.stop]
        return read

    def packed(self, start: int, stop: int) -> Tensor:
        """Read the bytes ``start`` to ``stop`` of the indices, uint8 [n]."""
        size = ITEM_BYTES[self.store.tensors[self.name].dtype]
        first = start // size
        read = self.store.read(self.name, range(first, ceil(stop / size))).reshape(-1).view(torch.uint8)
        return read[start - first * size : stop - first * size]

    def absmax(self, start: int, stop: int) -> Tensor:
        """Read the absmax of the blocks ``start`` to ``stop``, float32 [n].

        Raises:
            CheckpointError: one is infinite or not a number.
        """
        name = f"{self.name}.absmax"
        read = self.store.read(name, range(start, stop))
        if self.nested is not None:
            read = self.nested.decode(self.store, self.name, read, start)
        return finite(read, self.store.tensors[name], name)

    def _numbers(self, start: int, stop: int) -> Tensor:
        """Decode the numbers ``start`` to ``stop`` of the flattened weight."""
        pairs = torch.cartesian_prod(self.codebook, self.codebook)  # of each byte: [256, 2]
        byte, block = start // 2, start // self.block_size
        numbers = pairs[self.packed(byte, ceil(stop / 2)).int()].reshape(-1)[start - 2 * byte :][: stop - start]
        absmax = self.absmax(block, ceil(stop / self.block_size)).repeat_interleave(self.block_size)
        return numbers * absmax[start - block * self.block_size :][: stop - start]


@dataclass(frozen=True)
class Nested:
    """The absmax values that are quantized again: their block size, and the mean that was subtracted."""

    block_size: int
    offset: float

    def decode(self, store: TensorStore, name: str, indices: Tensor, start: int) -> Tensor:
        """Return the absmax of the blocks from ``start``, by their indices uint8 [n]; float32 [n]."""
        codebook = store.read(f"{name}.nested_quant_map")
        first = start // self.block_size
        scales = store.read(f"{name}.nested_absmax", range(first, ceil((start + len(indices)) / self.block_size)))
        spread = scales.repeat_interleave(self.block_size)[start - first * self.block_size :][: len(indices)]
        return codebook[indices.int()] * spread + torch.tensor(self.offset)


def read_4bit(store: TensorStore, name: str, quant_type: str) -> FourBitWeight:
    """Read the headers of one weight's tensors, and its state.

    Raises:
        CheckpointError: a tensor is missing or damaged, or they contradict each other.
    """
    state_name = f"{name}{STATE}{quant_type}"
    state = _state(store, state_name)
    try:
        shape, block_size = state.integers("shape", least=1), state.integer("blocksize")
        if shape is None or len(shape) != 2:
            raise state.bad("shape", "the two sizes of a matrix")
        if block_size not in BLOCK_SIZES:
            raise state.bad("blocksize", f"one of {', '.join(map(str, BLOCK_SIZES))}")
        if state.get("quant_type") != quant_type:
            raise state.bad("quant_type", quant_type)
        nested = _nested(state)
    except ValueError as error:
        raise CheckpointError(f"{error}; {AGAIN}") from None
    codes = expect(store, name, STORAGE, (None, 1))
    packed, numbers = codes.shape[0] * ITEM_BYTES[codes.dtype], prod(shape)
    if packed != (numbers + 1) // 2:
        raise CheckpointError(
            f"{codes.file}: tensor {name} has {packed:,} bytes, and its state says {shape[0]:,} x {shape[1]:,} numbers "
            f"in 4 bits; {AGAIN}"
        )
    blocks = ceil(numbers / block_size)
    stored = {
        name: codes,
        state_name: store.tensors[state_name],
        f"{name}.absmax": expect(store, f"{name}.absmax", ("F32",) if nested is None else ("U8",), (blocks,)),
        f"{name}.quant_map": expect(store, f"{name}.quant_map", ("F32",), (16,)),
    }
    if nested is not None:
        for part, size in (("nested_absmax", ceil(blocks / nested.block_size)), ("nested_quant_map", 256)):
            stored[f"{name}.{part}"] = expect(store, f"{name}.{part}", ("F32",), (size,))
        finite(store.read(f"{name}.nested_quant_map"), codes, f"{name}.nested_quant_map")
    _check_codebook(store, name, quant_type)
    info = TensorInfo(codes.file, "F32", (shape[0], shape[1]))
    return FourBitWeight(
        store, name, tuple(stored), info, stored_bytes(stored.values()), quant_type, block_size, nested
    )


def _state(store: TensorStore, name: str) -> JSONFields:
    info = expect(store, name, ("U8",), (None,))
    where = f"{info.file}: tensor {name}"
    if info.shape[0] > MAX_STATE_BYTES:
        raise CheckpointError(f"{where} has {info.shape[0]:,} bytes of JSON; {AGAIN}")
    try:
        state = parse_json(bytes(store.read(name).tolist()))
        if not isinstance(state, dict):
            raise ValueError("expected a JSON object")
    except ValueError as error:
        raise CheckpointError(f"{where} cannot be read as JSON ({error}); {AGAIN}") from None
    return JSONFields(state, where)


def _nested(state: JSONFields) -> Nested | None:
    size, offset = state.integer("nested_blocksize"), state.number("nested_offset")
    if size is None and offset is None:
        return None
    if size not in BLOCK_SIZES:
        raise state.bad("nested_blocksize", f"one of {', '.join(map(str, BLOCK_SIZES))}")
    if offset is None:
        raise state.bad("nested_offset", "a number")
    return Nested(size, offset)


def _check_codebook(store: TensorStore, name: str, quant_type: str) -> None:
    """Check that the stored codebook is the format's, which bitsandbytes computes with whatever is stored."""
    found = store.read(f"{name}.quant_map")
    if not torch.allclose(found, torch.tensor(CODEBOOKS[quant_type]), rtol=0, atol=1e-6):
        raise CheckpointError(
            f"{store.tensors[name].file}: tensor {name}.quant_map is not the codebook of {quant_type}; {AGAIN}"
        )
