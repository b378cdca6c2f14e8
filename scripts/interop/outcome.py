"""The outcome of a case in a runtime: its outputs beside intaglio's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from intaglio.artifact import Precision, Task

TOLERANCE = {"fp32": 1e-3}
COARSE = 0.05
"""How far a score, or a value of a hidden state over the largest, may be off: in precisions other than fp32 each
runtime's kernels round in another place."""

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
        ends: the tokens that end a text; what follows the first of them does not count.
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
        if not same(one, other):
            return Outcome("differs", f"text {index}: {_short(one)}, intaglio {_short(other)}")
    for index, (one, other) in enumerate(zip(found["batch"] or [], batch or [], strict=False)):
        if not same(one, other):
            return Outcome("differs", f"row {index} of a batch: {_short(one)}, intaglio {_short(other)}")
    if "batch_refused" in found:
        return Outcome("same", f"batches of different lengths are refused: {found['batch_refused']}")
    return Outcome("same")


def _cut(tokens: Sequence[int], ends: Sequence[int]) -> list[int]:
    stop = next((index for index, token in enumerate(tokens) if token in ends), len(tokens))
    return list(tokens[:stop])


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


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
