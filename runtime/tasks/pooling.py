"""One vector of the states of a text's tokens, and the layers after it, as sentence-transformers defines them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ArtifactError
from ...files.embedding import WEIGHTS, Activation, Embedding, Pooling, Step
from ...files.library_errors import library_errors
from ...files.regular_file import read_regular

Vector = NDArray[np.float32]
MAX_BYTES = 1 << 31
"""The most bytes of the weights of the dense layers."""

_erf = np.vectorize(math.erf, otypes=[np.float64])


def pool(hidden: NDArray[Any], modes: Sequence[Pooling], first: int = 0) -> NDArray[Any]:
    """Pool hidden states [S, D] from position ``first`` on; the vectors of several modes are concatenated.

    Where that leaves no token, as sentence-transformers: "cls" takes the first of all, the others give zeros; "max" has
    no value then, and ``first`` must be less than S.
    """
    return np.concatenate([_pool(hidden, mode, first) for mode in modes])


def _pool(hidden: NDArray[Any], mode: Pooling, first: int) -> NDArray[Any]:
    kept = hidden[first:]
    if not len(kept):
        return np.asarray(hidden[0] if mode == "cls" else np.zeros_like(hidden[0]))
    if mode == "last":
        return np.asarray(kept[-1])
    if mode == "cls":
        return np.asarray(kept[0])
    if mode == "max":
        return np.asarray(kept.max(axis=0))
    if mode == "weightedmean":  # the weight of a token is its position in the whole text, from 1
        weights = np.arange(first + 1, len(hidden) + 1, dtype=np.float32)
        return np.asarray(weights @ kept / weights.sum())
    total = kept.sum(axis=0)
    return np.asarray(total / (len(kept) if mode == "mean" else math.sqrt(len(kept))))


def read_weights(folder: Path, embedding: Embedding, hidden_size: int) -> dict[str, Vector]:
    """Read the weights of the dense layers.

    Raises:
        ArtifactError: the file is missing or damaged, or a layer does not take what the one before it gives.
    """
    if not any(step.kind == "dense" for step in embedding.steps):
        return {}
    from safetensors.numpy import load  # few embedders have dense layers

    path = folder / WEIGHTS
    with library_errors(lambda why: ArtifactError(f"{path} cannot be read ({why}); export the model again")):
        weights = load(read_regular(path, MAX_BYTES))
    width = hidden_size * len(embedding.pooling)
    for index, step in enumerate(embedding.steps):
        if step.kind == "normalize":
            continue
        weight = weights.get(f"{index}.weight", np.zeros(0, np.float32))
        out = weight.shape[0]
        shapes = {"weight": (out, width), "bias": (out,), "residual": (out, width)}
        for name, shape in shapes.items():
            tensor = weights.get(f"{index}.{name}")
            if name == "weight" or tensor is not None:
                found = None if tensor is None else (tensor.shape, str(tensor.dtype))
                if found != (shape, "float32"):
                    raise ArtifactError(
                        f"{path}: {index}.{name} is {found}, expected {(shape, 'float32')}; export the model again"
                    )
        if step.residual and f"{index}.residual" not in weights and out != width:
            raise ArtifactError(f"{path}: {index}.residual is missing; export the model again")
        width = out
    return weights


def apply(vectors: Vector, steps: Sequence[Step], weights: Mapping[str, Vector]) -> Vector:
    """Put vectors [N, D] through the steps, one after the other."""
    for index, step in enumerate(steps):
        vectors = normalized(vectors) if step.kind == "normalize" else _dense(vectors, index, step, weights)
    return vectors


def normalized(vectors: Vector) -> Vector:
    """Scale vectors [N, D] to length 1; a zero vector stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny))


def _dense(vectors: Vector, index: int, step: Step, weights: Mapping[str, Vector]) -> Vector:
    linear = vectors @ weights[f"{index}.weight"].T + weights.get(f"{index}.bias", np.float32(0))
    found = _activate(linear, step.activation)
    if step.residual:
        found = found + (vectors @ weights[f"{index}.residual"].T if f"{index}.residual" in weights else vectors)
    return found.astype(np.float32)


def _activate(x: NDArray[Any], activation: Activation) -> NDArray[Any]:
    if activation == "Tanh":
        return np.asarray(np.tanh(x))
    if activation == "ReLU":
        return np.asarray(np.maximum(x, 0))
    if activation == "GELU":
        return np.asarray(x * 0.5 * (1 + _erf(x / math.sqrt(2))))
    if activation in ("Sigmoid", "SiLU"):
        with np.errstate(over="ignore"):  # exp of a large number is infinity, and 1 / infinity is the right 0
            sigmoid = 1 / (1 + np.exp(-x))
        return np.asarray(sigmoid if activation == "Sigmoid" else x * sigmoid)
    return x
