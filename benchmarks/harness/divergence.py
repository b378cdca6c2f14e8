"""The divergence of a model's predictions from the reference's, over the same windows of text.

The folder holds ``windows.npy`` (token ids, [N, S]) and ``names.json`` (the text of each window). The reference's
log-probabilities are stored there as float16 [N, S, V] (7 GB for 48 windows of 512 tokens); they are renormalized when
read, so that their rounding adds less than 1e-6 to a divergence.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .engines import Floats, LogitsModel

POSITIONS = 64  # at once: 39 MB for each temporary array


def log_softmax(logits: Floats) -> Floats:
    """Return log-probabilities in nats, [S, V]."""
    shifted = logits - logits.max(-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    result: Floats = shifted
    return result


def write_reference(model: LogitsModel, folder: Path) -> None:
    """Write the log-probabilities, and unrounded the most likely token and the loss of the next one."""
    windows = np.load(folder / "windows.npy")
    top = np.empty(windows.shape, dtype=np.int64)
    loss = np.empty((windows.shape[0], windows.shape[1] - 1))
    stored: Any = None
    for number, tokens in enumerate(windows):
        logits = model.logits(tokens)
        if stored is None:
            shape = (*windows.shape, logits.shape[1])
            stored = np.lib.format.open_memmap(folder / "partial.npy", mode="w+", dtype=np.float16, shape=shape)
        top[number] = logits.argmax(-1)
        for begin in range(0, tokens.size, POSITIONS):
            found = log_softmax(logits[begin : begin + POSITIONS])
            stored[number, begin : begin + POSITIONS] = found
            loss[number, begin : begin + POSITIONS] = _loss(found, tokens[begin + 1 :])
    stored.flush()
    np.save(folder / "top.npy", top)
    np.save(folder / "loss.npy", loss)
    (folder / "partial.npy").replace(folder / "reference.npy")


def compare(model: LogitsModel, folder: Path, every: int = 1) -> dict[str, Any]:
    """Return figures for each text and for all; ``kl`` in nats per token, perplexities per predicted token.

    Each ``every``-th window is read. ``kl_error`` is the standard error of the mean over the windows, ``reference`` the
    folder's name.
    """
    windows = np.load(folder / "windows.npy")[::every]
    names = json.loads((folder / "names.json").read_text())[::every]
    reference = np.load(folder / "reference.npy", mmap_mode="r")[::every]
    kl, agrees = np.empty(windows.shape), np.empty(windows.shape)
    loss = np.empty((windows.shape[0], windows.shape[1] - 1))
    top = np.load(folder / "top.npy")[::every]
    for number, tokens in enumerate(windows):
        logits = model.logits(tokens)
        agrees[number] = logits.argmax(-1) == top[number]
        for begin in range(0, tokens.size, POSITIONS):
            found = log_softmax(logits[begin : begin + POSITIONS])
            expected = log_softmax(reference[number, begin : begin + POSITIONS].astype(np.float32))
            loss[number, begin : begin + POSITIONS] = _loss(found, tokens[begin + 1 :])
            np.subtract(expected, found, out=found)
            kl[number, begin : begin + POSITIONS] = (np.exp(expected) * found).sum(-1)
    figures: dict[str, Any] = {"windows": len(windows), "tokens": int(windows.shape[1])}
    figures |= {"reference": folder.name, "texts": {}}
    expected_loss = np.load(folder / "loss.npy")[::every]
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


def _loss(log_probabilities: Floats, following: NDArray[np.int64]) -> Floats:
    """Return the loss of each position's next token; a window's last position has no next token."""
    count = min(len(log_probabilities), len(following))
    return -np.take_along_axis(log_probabilities[:count], following[:count, None], -1)[:, 0]
