"""GPTQ of the weights with a row for each token: the embedding, before the layers, and the LM head, after them.

The layers read what the quantized embedding gives, so that its error is among those that they correct. A tied embedding
is the LM head too: a token is as frequent in the input as in the prediction, so that the Hessians of both uses are on
one scale, and are added.
"""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from ..formats.scheme import Scheme
from ..methods.finite import check_quantizable
from ..methods.gptq import Hessian, gptq
from ..methods.row_sources import save_solved
from .hessian import Fit
from .products import bfloat16_products
from .sensitivity import Sensitivity
from .stream import LayerStream

ROWS_BYTES = 1 << 22
"""Bytes, as stored, of the rows that are solved at once."""


def solve_embedding(stream: LayerStream, tensor: str, scheme: Scheme, sensitivity: Sensitivity, folder: Path) -> None:
    """Quantize the embedding, and let the stream's hidden states be its rows."""
    checkpoint = stream.checkpoint
    tied = checkpoint.config.tie_word_embeddings and checkpoint.task == "text-generation"
    gram = sensitivity.embedding + sensitivity.head if tied else sensitivity.embedding.clone()
    hessian = Hessian.of(gram, sensitivity.tokens)
    pieces, start = [], 0
    for weight in _weights(stream, tensor):
        rows = gptq(weight, scheme.format, hessian)
        inside = (stream.windows >= start) & (stream.windows < start + len(weight))
        stream.hidden[inside] = rows.dequantize()[stream.windows[inside] - start]
        start += len(weight)
        pieces.append(rows)
    save_solved(folder, tensor, pieces)


def solve_head(stream: LayerStream, original: LayerStream, tensor: str, scheme: Scheme, folder: Path) -> None:
    """Quantize an LM head of its own towards the float model's logits: the layers' last error is corrected too."""
    fit = Fit(stream.config.hidden_size, None)
    with bfloat16_products():
        for rows, theirs in zip(stream.normed(), original.normed(), strict=True):
            fit.add(rows, theirs - rows)
    aim = fit.target()
    pieces = [gptq(aim.weight(weight), scheme.format, aim.hessian) for weight in _weights(stream, tensor)]
    save_solved(folder, tensor, pieces)


def _weights(stream: LayerStream, tensor: str) -> Iterator[Tensor]:
    """Yield the tensor's rows, float32, some at a time.

    Raises:
        UnsupportedError: a value is not finite.
    """
    for _, rows in stream.checkpoint.rows(tensor, ROWS_BYTES):
        weight = rows.float()
        check_quantizable(weight, tensor)
        yield weight
