"""Embeddings: a call's inputs to vectors, and vectors to JSON."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ....runtime.tasks.embed import Embedder
from ....runtime.text.prompts import Prompt
from ...errors import ApiError
from ...steps import Steps, in_steps

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Embedded:
    """The vectors of a call's inputs, and the tokens that were read."""

    vectors: list[Vector]
    tokens: int


def embed(
    model: Embedder,
    texts: Sequence[Prompt],
    *,
    prompt_name: str | None = None,
    normalize: bool | None = None,
    truncation: bool = False,
    dimensions: int | None = None,
) -> Steps[Embedded]:
    """Embed the inputs of a call.

    Raises:
        ApiError: ``dimensions`` is not what the vectors have: only a model that was trained for it may be cut.
    """
    if dimensions not in (None, model.dimensions):
        raise ApiError(
            f"dimensions is {dimensions}, and the model's vectors have {model.dimensions:,}; leave dimensions out",
            param="dimensions",
        )
    encoded = model.encode(texts, prompt_name=prompt_name, truncation=truncation)
    lengths = [len(one) for one in encoded]

    def call(members: list[int]) -> Sequence[Vector]:
        return list(
            model(
                [texts[index] for index in members],
                prompt_name=prompt_name,
                normalize=normalize,
                truncation=truncation,
                batch_size=len(members),
            )
        )

    vectors = yield from in_steps(lengths, call)
    return Embedded(vectors, sum(lengths))


def embedding_items(vectors: Sequence[Vector], encoding: Literal["float", "base64"]) -> list[dict[str, Any]]:
    """Return the items of ``data``; in base64 a vector is float32, little-endian, as the openai client reads it."""
    written = [vector.tolist() if encoding == "float" else _base64(vector) for vector in vectors]
    return [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(written)]


def _base64(vector: Vector) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
