"""A weight in ``qweight``, ``qzeros``, ``scales`` and perhaps ``g_idx``: what GPTQ and AWQ have in common."""

from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ....errors import CheckpointError
from ...storage.store import TensorStore
from ...weight_source import TensorInfo
from ..stored import stored_bytes
from ..weights import BlockGrid, BlockParameters, QuantizedWeights
from .groups import Groups, consecutive, indexed
from .members import CODES, INDEX, SCALES, ZEROS, Scheme, ZeroPoints, check_members, group_size, modules
from .words import WORD, unpack, words_of

WITH_BIAS = ("q_proj.", "k_proj.", "v_proj.")
"""Modules that may have a bias in a model that is not quantized."""


class PackedWeight:
    """A weight [N, K]: a ``QuantizedWeight``, and its own ``BlockGrid``."""

    def __init__(self, store: TensorStore, module: str, scheme: Scheme) -> None:
        """Check the shapes and dtypes of its tensors.

        Args:
            module: the prefix of their names, with a dot.

        Raises:
            CheckpointError: a tensor is missing, or contradicts another or the settings.
            UnsupportedError: a scale has another dtype than float16, bfloat16 or float32.
        """
        self._store = store
        self._module = module
        self._scheme = scheme
        self._members, shape, self._bits = check_members(store, module, scheme)
        self._group_size = group_size(self._members, module, scheme, shape[1])
        self._kind: ZeroPoints = scheme.zero_points
        if self._kind == "one less, in words" and WORD % self._bits:
            self._kind = "one less, wrapped"  # fields that reach into the next word are stored one by one
        self.info = TensorInfo(self._members[CODES].file, "F32", shape)
        self.stored_in = frozenset(module + part for part in self._members)

    @property
    def format(self) -> str:
        size = f"groups of {self._group_size}" if self._group_size < self.info.shape[1] else "one group a row"
        order = ", act-order" if self.order is not None else ""
        return f"{self._scheme.format}, {self._bits} bits, {size}{order}"

    @property
    def stored_bytes(self) -> int:
        return stored_bytes(self._members.values())

    @property
    def grid(self) -> BlockGrid | None:
        return self if self.bits <= 8 else None

    @property
    def bits(self) -> int:
        """The bits of its codes and zero points: one more than stored where a zero point is ``2**bits``."""
        return self._own_bits

    @cached_property
    def _own_bits(self) -> int:
        if self._kind != "one less":
            return self._bits
        most = int(self._stored_zeros(range(self.info.shape[0])).max())
        return self._bits + (most == (1 << self._bits) - 1)

    @property
    def block_size(self) -> int:
        return self._groups.block_size

    @property
    def order(self) -> Tensor | None:
        return self._groups.order

    def parameters(self) -> BlockParameters:
        rows, groups = range(self.info.shape[0]), self._groups.of_block
        return BlockParameters(self._scales(rows, groups), self._zero_points(rows)[:, groups].to(torch.uint8))

    def codes(self, rows: range) -> Tensor:
        codes = self._codes(rows, range(self.info.shape[1]))
        return codes if self.order is None else codes[:, self.order]

    def values(self, rows: range, columns: range) -> Tensor:
        groups = self._groups.of_column[columns.start : columns.stop]
        codes = self._codes(rows, columns).to(torch.int16) - self._zero_points(rows)[:, groups]
        return codes.float().mul_(self._scales(rows, groups))

    @cached_property
    def _groups(self) -> Groups:
        columns = self.info.shape[1]
        if INDEX not in self._members:
            return consecutive(columns, self._group_size)
        index = self._store.read(self._module + INDEX).long()
        groups = self._members[SCALES].shape[0]
        if int(index.min()) < 0 or int(index.max()) >= groups:
            wrong = index[(index < 0) | (index >= groups)][0].item()
            raise CheckpointError(
                f"{self._members[INDEX].file}: {self._module}{INDEX} has the group {wrong}, and {self._module}{SCALES} "
                f"has those from 0 to {groups - 1}; fetch the file again"
            )
        return indexed(index)

    def _codes(self, rows: range, columns: range) -> Tensor:
        """Read codes in the order of the weight's columns, uint8 [n, k]."""
        name = self._module + CODES
        if self._scheme.awq:
            words, first = words_of(rows, self._bits)
            packed = self._store.read(name, columns, words).t()
            return unpack(packed, self._bits, interleaved=True)[rows.start - first : rows.stop - first].contiguous()
        words, first = words_of(columns, self._bits)
        packed = self._store.read(name, words, rows)
        return unpack(packed, self._bits)[columns.start - first : columns.stop - first].t().contiguous()

    def _stored_zeros(self, rows: range) -> Tensor:
        """Read the zero points as they are stored, int16 [n, groups]."""
        words, first = words_of(rows, self._bits)
        packed = self._store.read(self._module + ZEROS, None, words).t()
        if self._kind == "one less, in words":
            ones = sum(1 << shift for shift in range(0, WORD, self._bits))
            packed = packed + ones  # in int32, as its writer subtracts them: borrows are undone, the last one is lost
        stored = unpack(packed, self._bits, interleaved=self._scheme.awq)
        return stored[rows.start - first : rows.stop - first].to(torch.int16)

    def _zero_points(self, rows: range) -> Tensor:
        """Read the zero points, int16 [n, groups]."""
        stored = self._stored_zeros(rows)
        if self._kind in ("stored", "one less, in words"):
            return stored
        more = stored + 1
        return more if self._kind == "one less" else more & ((1 << self._bits) - 1)

    def _scales(self, rows: range, groups: Tensor) -> Tensor:
        """Read the scales of some groups, float32 [n, len(groups)]."""
        scales = self._store.read(self._module + SCALES, None, rows).float().t()[:, groups]
        if not bool(torch.isfinite(scales).all()):
            raise CheckpointError(
                f"{self._members[SCALES].file}: {self._module}{SCALES} has scales that are not finite; fetch the file "
                "again, or see whether its quantization failed"
            )
        return scales


def packed_weights(store: TensorStore, scheme: Scheme, folder: Path) -> QuantizedWeights:
    """Return the packed weights of a store, by the names that they have where they are not quantized.

    Raises:
        CheckpointError: tensors contradict each other or the settings, or there are none.
        UnsupportedError: a tensor has a dtype that is not read.
    """
    weights = {f"{module}weight": PackedWeight(store, module, scheme) for module in modules(store.tensors)}
    if not weights:
        raise CheckpointError(
            f"{scheme.where} says that the weights are in {scheme.format}, and {folder} has no tensor qweight; remove "
            "the settings, or fetch the weights that belong to them"
        )
    biases = [f"{module}bias" for module in modules(store.tensors) if _zero_bias(store, module)]
    stored_in = frozenset(biases).union(*(weight.stored_in for weight in weights.values()))
    if not biases:
        return QuantizedWeights(weights, stored_in)
    count = "1 bias of zeros is" if len(biases) == 1 else f"{len(biases)} biases of zeros are"
    return QuantizedWeights(weights, stored_in, (f"{count} left out, which the model has no place for",))


def _zero_bias(store: TensorStore, module: str) -> bool:
    """Return True for a bias that AutoGPTQ added to a module without one."""
    info = store.tensors.get(f"{module}bias")
    if info is None or module.endswith(WITH_BIAS) or info.shape != store.tensors[f"{module}{SCALES}"].shape[1:]:
        return False
    return not bool(store.read(f"{module}bias").any())
