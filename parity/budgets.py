"""How far an operator may be from the source when it is given the source's own numbers.

Arithmetic rounds, and codes of few bits differ from the weights that they stand for. Both move a product by an amount
that can be reckoned: an error that knows nothing of the inputs, spread evenly over a weight [N, K], moves W x by
about error * |W| * |x| / sqrt(K), whatever W x itself is.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from ..artifact import Manifest, Quantization

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


def product(base: float, weight: Tensor, given: Tensor, wanted: Tensor, quantization: Quantization | None) -> float:
    """The budget of W x, relative to ``wanted``.

    Args:
        weight: [N, K].
        given: x, [..., K].
        wanted: [..., N], with the bias where there is one.
    """
    weight, x = weight.double(), given.reshape(-1, given.shape[-1]).double()
    size = float(wanted.double().square().sum().sqrt()) or 1e-30
    even = float(weight.square().sum().sqrt() * x.square().sum().sqrt()) / x.shape[-1] ** 0.5 / size
    if quantization is None:
        return base * max(1.0, even)
    # Activations become codes of 8 bits, a scale for each run of columns.
    step = _largest(x, quantization.block_size) / INT8
    activations = float(((step.square() / 12) @ weight.square().sum(0)).sum().sqrt()) / size
    return base * max(1.0, even) + MARGIN * (quantization.error * even + activations)


def attention(base: float, unit: float, query: Tensor, key: Tensor, dim: int) -> float:
    """The budget of softmax(q k) v: an error of a score is relative to the score, and its effect is not.

    Args:
        query: [..., H * E]; key: [..., K * E].
    """
    longest = [x.reshape(-1, dim).double().norm(dim=-1).mean() for x in (query, key)]
    return base + unit * float(longest[0] * longest[1]) / dim**0.5


def _largest(x: Tensor, block: int) -> Tensor:
    """For each element of [M, K] the largest magnitude of its block."""
    size = min(block, x.shape[-1])
    padded = torch.nn.functional.pad(x.abs(), (0, -x.shape[-1] % size))
    return padded.unflatten(-1, (-1, size)).amax(-1).repeat_interleave(size, -1)[:, : x.shape[-1]]
