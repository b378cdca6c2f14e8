"""The outcome of a case in a runtime: its outputs beside intaglio's."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from intaglio.artifact import Precision, Task
from intaglio.contract import MASK_CHECK

TOLERANCE = {"fp32": 1e-3}
COARSE = 0.05
"""How far a score, or a value of a hidden state over the largest, may be off: in precisions other than fp32 each
runtime's kernels round in another place."""

LEFT = "the runtime pads on the left, and target ort takes padding on the right"
SAME = {"text-generation": "same tokens", "feature-extraction": "same values"}


@dataclass(frozen=True)
class Outcome:
    """``kind``, and why: the runtime's message, what differs, or why it was not run."""

    kind: Literal["same", "refused", "differs", "not run"]
    reason: str = ""


def judge(
    task: Task,
    precision: Precision,
    found: Any,
    outputs: Sequence[Any],
    batch: Sequence[Any] | None,
    ends: Sequence[int],
) -> Outcome:
    """Compare a runner's result with intaglio's outputs for the same texts, and for those of the batch.

    Args:
        ends: the tokens that end a text. A row of a batch may go on with padding after the first of them, a text alone
            ends there.
    """
    if "refused" in found:
        return Outcome("refused", found["refused"])
    tolerance = TOLERANCE.get(precision, COARSE)

    def same(one: Any, other: Any) -> bool:
        return _COMPARE[task](_cut(one, ends) if task == "text-generation" else one, other, tolerance)

    if task == "text-generation":
        outputs = [_cut(one, ends) for one in outputs]
        batch = batch and [_cut(one, ends) for one in batch]
    for index, (one, other) in enumerate(zip(found["outputs"], outputs, strict=True)):
        if task == "text-generation" and len(one) > len(_cut(one, ends)) + 1:
            return Outcome("differs", f"text {index + 1}: goes on after the end token")
        if not same(one, other):
            return Outcome("differs", f"text {index + 1}: {_difference(one, other)}")
    for index, (one, other) in enumerate(zip(found["batch"] or [], batch or [], strict=False)):
        if not same(one, other):
            return Outcome("differs", f"row {index + 1} of a batch: {_difference(one, other)}")
    if "batch_refused" in found:
        refused = found["batch_refused"]
        refused = LEFT if MASK_CHECK in refused or "target ort" in refused else refused
        return Outcome("same", f"batches of different lengths are refused: {refused}")
    return Outcome("same")


def _cut(tokens: Sequence[int], ends: Sequence[int]) -> list[int]:
    stop = next((index for index, token in enumerate(tokens) if token in ends), len(tokens))
    return list(tokens[:stop])


def _difference(found: Any, expected: Any) -> str:
    """Return in words where two outputs part; lists at their first difference."""
    if isinstance(expected, list):
        pairs = itertools.zip_longest(found, expected, fillvalue="the end")
        for index, (one, other) in enumerate(pairs):
            if one != other:
                return f"token {index + 1} of {len(expected)} is {one}, intaglio's {other}"
    return f"{found}, intaglio's {expected}"


def _equal(one: Any, other: Any, tolerance: float) -> bool:
    return bool(one == other)


def _scored(key: str) -> Callable[[Any, Any, float], bool]:
    def same(one: Any, other: Any, tolerance: float) -> bool:
        return bool(one[key] == other[key] and abs(one["score"] - other["score"]) <= tolerance)

    return same


def _close(one: Any, other: Any, tolerance: float) -> bool:
    values = np.array(other["values"])
    return one["shape"] == other["shape"] and bool(
        np.abs(np.array(one["values"]) - values).max() <= tolerance * np.abs(values).max()
    )


_COMPARE: dict[str, Callable[[Any, Any, float], bool]] = {
    "text-generation": _equal,
    "text-classification": _scored("label"),
    "token-classification": _equal,
    "question-answering": _scored("answer"),
    "feature-extraction": _close,
}
