"""The quantized weights of an artifact of target ``ort`` as its operators read them, and its logits.

Written from the specification of MatMulNBits and GatherBlockQuantized (onnxruntime/docs/ContribOperators.md), and from
that of weights of 5 bits (docs/artifact-format.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from intaglio.artifact import Quantization, read_manifest
from intaglio.scripts.interop.float_activations import float_session
from intaglio.tests.exporter.drive import run
from intaglio.tests.files.artifact_files import graph_of
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

Array = NDArray[Any]


@dataclass(frozen=True)
class StoredGrid:
    """A weight [N, K] of an artifact, each of its facts for each code; its columns are in the order of the codes.

    Args:
        codes: int16.
        zero_points: int16.
        scales: float32.
        offsets: float32; zeros where the weight has none.
    """

    codes: Array
    zero_points: Array
    scales: Array
    offsets: Array

    def rows(self, rows: slice) -> "StoredGrid":
        return StoredGrid(self.codes[rows], self.zero_points[rows], self.scales[rows], self.offsets[rows])

    @property
    def numbers(self) -> Array:
        """The weight in float64, which rounds none of these products and sums."""
        steps = (self.codes - self.zero_points).astype(np.float64)
        return np.asarray(self.scales.astype(np.float64) * steps + self.offsets)


def stored_grids(folder: Path, rows: Mapping[str, int]) -> dict[str, StoredGrid]:
    """Return the quantized weights of an artifact by their names in the checkpoint.

    Args:
        rows: the number of rows of each weight, by its name in the checkpoint: a packed projection has several.
    """
    arrays = {one.name: numpy_helper.to_array(one) for one in onnx.load(graph_of(folder)).graph.initializer}
    found = {}
    for name, entry in read_manifest(folder).tensors.items():
        if entry.quantization is None:
            continue
        stem = name.removesuffix(".codes")
        whole = _grid(arrays, stem, entry.shape[-1], entry.quantization)
        start = 0
        for source in entry.sources:
            found[source] = whole.rows(slice(start, start + rows[source]))
            start += rows[source]
        assert start == len(whole.codes)
    return found


def _grid(arrays: Mapping[str, Array], stem: str, columns: int, facts: Quantization) -> StoredGrid:
    size, bits = facts.block_size, facts.bits
    five = bits == 5
    codes = _unpacked(arrays[f"{stem}.codes"], 4 if five else bits)
    if five:
        codes = 2 * codes + _lowest_bits(arrays[f"{stem}.low_bits"])
    count = len(codes)
    blocks = -(-columns // size)
    codes = codes.reshape(count, blocks * size)[:, :columns]
    zeros: Array = np.full((count, blocks), 1 << (bits - 1), np.int16)
    if (stored := _by_row(arrays, f"{stem}.zero_points")) is not None:
        zeros = _unpacked(stored, 8 if five else bits).reshape(count, -1)[:, :blocks] // (8 if five else 1)
    scales = _by_row(arrays, f"{stem}.scales")
    assert scales is not None
    scales = scales.astype(np.float32).reshape(count, blocks) * np.float32(8 if five else 1)
    block = np.arange(columns) // size
    offsets: Array = np.zeros((count, blocks), np.float32)
    if (added := _by_row(arrays, f"{stem}.offsets")) is not None:  # a multiplication takes them [KB, N]
        offsets = (added if added.shape == (count, blocks) else added.T).astype(np.float32)
    return StoredGrid(codes, zeros[:, block], scales[:, block], offsets[:, block])


def _by_row(arrays: Mapping[str, Array], name: str) -> Array | None:
    """Return an array, or the one that an embedding looks up by row."""
    return arrays.get(name, arrays.get(f"{name}.rows"))


def _unpacked(packed: Array, bits: int) -> Array:
    """Return the codes of each row as int16; two of 4 bits share a byte, the first in its low half."""
    assert bits in (4, 8)
    flat = packed.reshape(len(packed), -1).view(np.uint8)
    both = np.stack((flat & 15, flat >> 4), -1).reshape(len(packed), -1) if bits == 4 else flat
    return both.astype(np.int16)


def _lowest_bits(stored: Array) -> Array:
    """Return the lowest bit of each code of a row: of codes 32 s + 4 i + b it is bit i of byte 4 s + b."""
    code = np.arange(stored[0].size * 8)
    found = stored.reshape(len(stored), -1)[:, code // 32 * 4 + code % 4] >> code % 32 // 4 & 1
    return np.asarray(found, dtype=np.int16)


def artifact_logits(folder: Path, ids: Tensor) -> Tensor:
    """Return the logits [B, S, V] of an artifact; its quantized weights are multiplied by float activations."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = float_session(graph_of(folder), options)
    feeds: dict[str, Array] = {"input_ids": ids.numpy(), "attention_mask": np.ones(ids.shape, np.int64)}
    for value in session.get_inputs():
        if value.name.startswith("past"):
            feeds[value.name] = np.zeros((len(ids), value.shape[1], 0, value.shape[3]), np.float32)
        elif value.name == "logits_to_keep":
            feeds[value.name] = np.array([0])
    return torch.from_numpy(run(session, feeds, ["logits"])[0])
