"""How far a model's predictions are from the reference's, over the same windows of text.

    python benchmarks/quality.py reference MODEL CACHE    the reference's log-probabilities, once
    python benchmarks/quality.py compare MODEL CACHE      prints the figures as JSON

CACHE holds ``windows.npy`` (token ids, [N, S]) and ``names.json`` (the text of each window). The
reference's log-probabilities lie there as float16 [N, S, V] (5 GB for 32 windows of 512 tokens); renormalized
when read, their rounding adds less than 1e-6 to a divergence. Run by peers' own interpreters too: needs numpy and what
runs the model.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from backends import Floats, Model, open_model
from numpy.typing import NDArray

ROWS = 64  # positions at once: 39 MB for each temporary


def log_softmax(logits: Floats) -> Floats:
    """Log-probabilities in nats, [S, V]."""
    shifted = logits - logits.max(-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    result: Floats = shifted
    return result


def write_reference(model: Model, cache: Path) -> None:
    """Log-probabilities, and what rounding to float16 would blur: the likeliest token, and the loss of the next one."""
    windows = np.load(cache / "windows.npy")
    top = np.empty(windows.shape, dtype=np.int64)
    loss = np.empty((windows.shape[0], windows.shape[1] - 1))
    stored: Any = None
    for number, tokens in enumerate(windows):
        logits = model.logits(tokens)
        if stored is None:
            shape = (*windows.shape, logits.shape[1])
            stored = np.lib.format.open_memmap(cache / "partial.npy", mode="w+", dtype=np.float16, shape=shape)
        top[number] = logits.argmax(-1)
        for begin in range(0, tokens.size, ROWS):
            rows = log_softmax(logits[begin : begin + ROWS])
            stored[number, begin : begin + ROWS] = rows
            loss[number, begin : begin + ROWS] = _loss(rows, tokens[begin + 1 :])
    stored.flush()
    np.save(cache / "top.npy", top)
    np.save(cache / "loss.npy", loss)
    (cache / "partial.npy").replace(cache / "reference.npy")


def compare(model: Model, cache: Path, every: int = 1) -> dict[str, Any]:
    """Figures for each text and for all; ``kl`` in nats per token, ``loss`` in nats per predicted token.

    ``kl_error`` is the standard error of the mean over the windows, of which each ``every``-th is read.
    """
    windows = np.load(cache / "windows.npy")[::every]
    names = json.loads((cache / "names.json").read_text())[::every]
    reference = np.load(cache / "reference.npy", mmap_mode="r")[::every]
    kl, agrees = np.empty(windows.shape), np.empty(windows.shape)
    loss = np.empty((windows.shape[0], windows.shape[1] - 1))
    top = np.load(cache / "top.npy")[::every]
    for number, tokens in enumerate(windows):
        logits = model.logits(tokens)
        agrees[number] = logits.argmax(-1) == top[number]
        for begin in range(0, tokens.size, ROWS):
            rows = log_softmax(logits[begin : begin + ROWS])
            expected = log_softmax(reference[number, begin : begin + ROWS].astype(np.float32))
            loss[number, begin : begin + ROWS] = _loss(rows, tokens[begin + 1 :])
            np.subtract(expected, rows, out=rows)
            kl[number, begin : begin + ROWS] = (np.exp(expected) * rows).sum(-1)
    figures: dict[str, Any] = {"windows": len(windows), "tokens": int(windows.shape[1]), "texts": {}}
    expected_loss = np.load(cache / "loss.npy")[::every]
    for name in dict.fromkeys(names):
        chosen = np.array([other == name for other in names])
        figures["texts"][name] = _figures(kl[chosen], agrees[chosen], loss[chosen], expected_loss[chosen])
    figures |= _figures(kl, agrees, loss, expected_loss)
    figures["kl_of_window"] = [round(float(value), 7) for value in kl.mean(-1)]
    return figures


def _figures(kl: NDArray[Any], agrees: NDArray[Any], loss: NDArray[Any], expected: NDArray[Any]) -> dict[str, float]:
    spread = float(kl.mean(-1).std(ddof=1)) if len(kl) > 1 else math.nan
    return {
        "kl": float(kl.mean()),
        "kl_error": spread / math.sqrt(len(kl)),
        "top1": float(agrees.mean()),
        "perplexity": math.exp(loss.mean()),
        "reference_perplexity": math.exp(expected.mean()),
        "perplexity_ratio": math.exp(loss.mean() - expected.mean()),
    }


def _loss(rows: Floats, following: NDArray[np.int64]) -> Floats:
    """The loss of each row's next token; the last position of a window has none."""
    count = min(len(rows), len(following))
    return -np.take_along_axis(rows[:count], following[:count, None], -1)[:, 0]


def main(task: str, path: str, cache: str) -> None:
    length = np.load(Path(cache) / "windows.npy").shape[1]
    model = open_model(Path(path), threads=2, capacity=length)
    if task == "reference":
        write_reference(model, Path(cache))
    else:
        print(json.dumps(compare(model, Path(cache))))


if __name__ == "__main__":
    main(*sys.argv[1:])
