"""The relative error of an operator that is given the source's activations, and the error that it may have.

Arithmetic rounds, and quantized codes differ from the weights that they encode. The effect of both on a matrix
multiplication can be estimated: an error that does not depend on the inputs, spread evenly over a weight [N, K],
changes W x by about error * |W| * |x| / sqrt(K), whatever W x itself is.
"""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...artifact import Manifest, Quantization

ROUNDING = {"float32": 2e-5, "float16": 4e-3}
"""The effect of the order of summation and of rounding inputs and outputs, by dtype of the activations."""
UNIT = {"float32": 2.0**-23, "float16": 2.0**-10}
MARGIN = 3.0
"""Where outliers of weights and of inputs coincide, as in trained models, the error is up to this many times the
estimate."""
INT8_MAX = 127


def relative_error(expected: Tensor, actual: Tensor, mask: Tensor | None = None) -> float:
    """Return the root mean square of the difference over that of ``expected``.

    Args:
        mask: bool [B, S], the positions to compare; None for all.

    Returns:
        1 where the shapes differ or where ``actual`` has NaN or infinite values; at most 1e6.
    """
    if expected.shape != actual.shape:
        return 1.0
    if mask is not None and mask.shape == expected.shape[: mask.dim()]:
        expected, actual = expected[mask], actual[mask]
    if not torch.isfinite(actual).all():
        return 1.0
    scale = float(expected.double().square().sum().sqrt())
    difference = float((actual.double() - expected.double()).square().sum().sqrt())
    return min(difference / max(scale, 1e-30), 1e6) if difference else 0.0


def rounding_budget(manifest: Manifest) -> float:
    """Return the budget of an operator without quantized weights."""
    return ROUNDING[manifest.model.cache_dtype]


def quantization_of(names: Iterable[str], manifest: Manifest) -> Quantization | None:
    """Return how the tensors of these names are quantized, if one is; of several, the one with the largest error."""
    found = []
    for name in names:
        entry = manifest.tensors.get(name)
        if entry is not None and entry.quantization is not None:
            found.append(entry.quantization)
    return max(found, key=lambda quantization: quantization.error, default=None)


def squared_column_norms(weight: Tensor) -> Tensor:
    """Return the squared norm of each column of a weight [N, K]: float64 [K]."""
    norms: Tensor = torch.linalg.vector_norm(weight.detach(), dim=0)
    return norms.double().square()


def matmul_budget(
    base: float, columns: Tensor, inputs: Tensor, expected: Tensor, quantization: Quantization | None
) -> float:
    """Return the budget of W x, relative to ``expected``.

    Args:
        columns: the weight's ``squared_column_norms``.
        inputs: x, [..., K].
        expected: [..., N], with the bias where there is one.
    """
    x = inputs.reshape(-1, len(columns)).double()
    size = max(math.sqrt(expected.double().square().sum()), 1e-30)
    even = math.sqrt(columns.mean() * x.square().sum()) / size
    if quantization is None:
        return base * max(1.0, even)
    # The kernel rounds the activations to 8 bits, with one scale for each block of columns.
    steps = _block_maxima(x, quantization.block_size) / INT8_MAX
    activations = math.sqrt((steps.square() @ columns).sum() / 12) / size
    return base * max(1.0, even) + MARGIN * (quantization.error * even + activations)


def mixture_budget(base: float, quantization: Quantization | None) -> float:
    """Return the budget of a mixture of experts: three products, one after the other, have the errors of one each.

    The router is computed in float from the source's activations, so that it chooses the same experts.
    """
    return base if quantization is None else base + MARGIN * math.sqrt(3) * (quantization.error + 1 / INT8_MAX)


def attention_budget(base: float, unit: float, query: Tensor, key: Tensor, head_dim: int) -> float:
    """Return the budget of softmax(q k) v, where the error grows with the size of the scores.

    Args:
        query: [..., H * E]; key: [..., K * E].
    """
    lengths = [float(x.reshape(-1, head_dim).norm(dim=-1).mean()) for x in (query, key)]
    return base + unit * lengths[0] * lengths[1] / math.sqrt(head_dim)


def _block_maxima(x: Tensor, block_size: int) -> Tensor:
    """Return for each element of [M, K] the largest magnitude in its block."""
    size = min(block_size, x.shape[-1])
    padded = F.pad(x.abs(), (0, -x.shape[-1] % size))
    blocks: Tensor = padded.reshape(len(x), -1, size).amax(-1)
    return blocks.repeat_interleave(size, -1)[:, : x.shape[-1]]
