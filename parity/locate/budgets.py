"""How far an operator may be from the source when it is given the source's own numbers.

Arithmetic rounds, and codes of few bits differ from the weights that they stand for. Both move a product by an amount
that can be reckoned: an error that knows nothing of the inputs, spread evenly over a weight [N, K], moves W x by
about error * |W| * |x| / sqrt(K), whatever W x itself is.
"""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...artifact import Manifest, Quantization

ROUNDING = {"float32": 2e-5, "float16": 4e-3}
"""What the order of sums, and the rounding of inputs and outputs, may change; by the element type of activations."""
UNIT = {"float32": 2.0**-23, "float16": 2.0**-10}
MARGIN = 3.0
"""Outliers among weights and inputs meet: products of trained models err up to so many times the estimate."""
INT8 = 127


def rounding(manifest: Manifest) -> float:
    """The budget of an operator without quantized weights."""
    return ROUNDING[manifest.model.cache_dtype]


def quantization_of(names: Iterable[str], manifest: Manifest) -> Quantization | None:
    """How the weights of these names are quantized, if one of them is; the widest error where several are."""
    found = []
    for name in names:
        entry = manifest.tensors.get(name)
        if entry is not None and entry.quantization is not None:
            found.append(entry.quantization)
    return max(found, key=lambda q: q.error, default=None)


def energies(weight: Tensor) -> Tensor:
    """The squared length of each column of a weight [N, K]: float64 [K]."""
    lengths: Tensor = torch.linalg.vector_norm(weight.detach(), dim=0)
    return lengths.double().square()


def product(base: float, columns: Tensor, given: Tensor, wanted: Tensor, quantization: Quantization | None) -> float:
    """The budget of W x, relative to ``wanted``.

    Args:
        columns: the weight's ``energies``.
        given: x, [..., K].
        wanted: [..., N], with the bias where there is one.
    """
    x = given.reshape(-1, len(columns)).double()
    size = max(math.sqrt(wanted.double().square().sum()), 1e-30)
    even = math.sqrt(columns.mean() * x.square().sum()) / size
    if quantization is None:
        return base * max(1.0, even)
    # Activations become codes of 8 bits, a scale for each run of columns.
    steps = _largest(x, quantization.block_size) / INT8
    activations = math.sqrt((steps.square() @ columns).sum() / 12) / size
    return base * max(1.0, even) + MARGIN * (quantization.error * even + activations)


def attention(base: float, unit: float, query: Tensor, key: Tensor, dim: int) -> float:
    """The budget of softmax(q k) v: an error of a score is relative to the score, and its effect is not.

    Args:
        query: [..., H * E]; key: [..., K * E].
    """
    longest = [float(x.reshape(-1, dim).norm(dim=-1).mean()) for x in (query, key)]
    return base + unit * longest[0] * longest[1] / math.sqrt(dim)


def _largest(x: Tensor, block: int) -> Tensor:
    """For each element of [M, K] the largest magnitude of its block."""
    size = min(block, x.shape[-1])
    padded = F.pad(x.abs(), (0, -x.shape[-1] % size))
    blocks: Tensor = padded.reshape(len(x), -1, size).amax(-1)
    return blocks.repeat_interleave(size, -1)[:, : x.shape[-1]]
