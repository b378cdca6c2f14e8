"""Figures from the outputs of source and artifact: differences, divergences, agreement of the most likely tokens."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...artifact import ModelFacts, Task
from .result import Figures

Floats = NDArray[Any]

Kind = Literal["distribution", "independent", "values"]
"""What a row of outputs is: the logits of one choice, of several yes/no choices, or values."""

ROWS = 16
"""Positions at once: 10 MB for each temporary array at a vocabulary of 150,000."""
WRONG = np.float32(1e15)
"""Replaces differences that are NaN or infinite; its square is still finite."""


def kind_of(task: Task, facts: ModelFacts) -> Kind:
    """Return the kind of a row of the task's outputs."""
    if task == "feature-extraction" or facts.problem_type == "regression":
        return "values"
    if task == "text-classification":
        if facts.problem_type == "multi_label_classification":
            return "independent"
        return "values" if len(facts.labels) == 1 else "distribution"
    return "distribution"


@dataclass(frozen=True)
class Flip:
    """A position with a large divergence: the passage's index in its case, the token's in the passage, and the most
    likely tokens of source and artifact, each with the probability that its own model gives it."""

    passage: int
    position: int
    wanted: int
    got: int
    wanted_probability: float
    got_probability: float
    kl: float


@dataclass
class Tally:
    """Compares rows of the source with rows of the artifact, and sums up the figures.

    Args:
        noise: the difference that rounding alone can cause, in standard deviations of a row's logits.
        keep: number of the worst positions that are kept.
    """

    kind: Kind
    noise: float
    keep: int = 0
    kl: list[Floats] = field(default_factory=list)
    worst: list[Flip] = field(default_factory=list)
    pairs: list[Floats] = field(default_factory=list)
    positions: int = 0
    _largest: float = 0.0
    _absolute: float = 0.0
    _squares: list[Floats] = field(default_factory=list)
    _spread: list[Floats] = field(default_factory=list)
    _numbers: int = 0
    _agree: int = 0
    _in_five: int = 0
    _near: int = 0
    _loss: list[Floats] = field(default_factory=list)
    _source_loss: list[Floats] = field(default_factory=list)

    def add(
        self,
        source: Floats,
        artifact: Floats,
        *,
        following: NDArray[np.int64] | None = None,
        passage: int = 0,
        first: int = 0,
    ) -> None:
        """Compare rows [N, C] with rows [N, C].

        Args:
            following: the token after each of the first positions, int64 [at most N]; None if there is no next token.
            passage: the index of the rows' passage; ``first`` is the first row's position in it.
        """
        assert source.shape == artifact.shape, (source.shape, artifact.shape)
        for start in range(0, len(source), ROWS):
            rows = slice(start, start + ROWS)
            part = following[rows] if following is not None else None
            self._add(source[rows].astype(np.float32), artifact[rows].astype(np.float32), part, passage, first + start)

    def _add(
        self, source: Floats, artifact: Floats, following: NDArray[np.int64] | None, passage: int, first: int
    ) -> None:
        difference = np.abs(artifact - source)
        difference[~(difference < WRONG)] = WRONG
        self.positions += len(source)
        self._largest = max(self._largest, float(difference.max()))
        self._absolute += float(difference.sum(dtype=np.float64))
        self._squares.append(np.square(difference).reshape(len(source), -1).sum(-1, dtype=np.float64))
        spread = _spread(source) if self.kind == "distribution" else source
        variance = np.square(spread).reshape(len(source), -1).mean(-1, dtype=np.float64)
        self._spread.append(variance * (source.size / len(source)))
        self._numbers += source.size
        self._pair(source, artifact)
        if self.kind == "values":
            return
        sound = np.where(np.isfinite(artifact), artifact, -WRONG)
        if self.kind == "independent":
            self._agree += int(((source > 0) == (sound > 0)).all(-1).sum())
            return
        self._choices(source, sound, spread, following, passage, first)

    def _choices(
        self,
        source: Floats,
        artifact: Floats,
        spread: Floats,
        following: NDArray[np.int64] | None,
        passage: int,
        first: int,
    ) -> None:
        wanted, got = source.argmax(-1), artifact.argmax(-1)
        row = np.arange(len(source))
        margin = source[row, wanted] - source[row, got]
        differs = wanted != got
        near = differs & (margin <= self.noise * spread)
        self._agree += int((~differs).sum())
        self._near += int(near.sum())
        if source.shape[-1] > 5:
            # In the artifact's top five if at most four tokens are more likely; ties count as agreement.
            self._in_five += int(((artifact > artifact[row, wanted][:, None]).sum(-1) < 5).sum())
        expected, found = log_softmax(source), log_softmax(artifact)
        kl = np.maximum((np.exp(expected) * (expected - found)).sum(-1, dtype=np.float64), 0)
        self.kl.append(kl)
        if following is not None and len(following):
            places = row[: len(following)]
            self._source_loss.append(-expected[places, following])
            self._loss.append(-found[places, following])
        if self.keep:
            self.worst += [
                Flip(
                    passage,
                    first + int(i),
                    int(wanted[i]),
                    int(got[i]),
                    float(np.exp(expected[i, wanted[i]])),
                    float(np.exp(found[i, got[i]])),
                    float(kl[i]),
                )
                for i in np.argsort(-kl)[: self.keep]
            ]
            self.worst = sorted(self.worst, key=lambda flip: -flip.kl)[: self.keep]

    def _pair(self, source: Floats, artifact: Floats) -> None:
        """Keep pairs of a few logits of each row: the source's largest, and some at fixed columns."""
        if not self.keep:
            return
        columns = np.linspace(0, source.shape[-1] - 1, 6).astype(int)
        row = np.arange(len(source))[:, None]
        chosen = np.concatenate([np.broadcast_to(columns, (len(source), 6)), source.argmax(-1)[:, None]], axis=-1)
        self.pairs.append(np.stack([source[row, chosen], artifact[row, chosen]], -1).reshape(-1, 2))

    def figures(self) -> Figures:
        """Return the figures of all rows so far."""
        kl = np.concatenate(self.kl) if self.kl else None
        choice = self.kind == "distribution"
        flips = self.positions - self._agree - self._near if self.kind != "values" else 0
        relative_error, errors = _relative_error(np.concatenate(self._squares), np.concatenate(self._spread))
        share = flips / self.positions
        standard_errors = {"relative_error": errors, "flips": math.sqrt(share * (1 - share) / self.positions)}
        if kl is not None:
            standard_errors["kl_mean"] = float(kl.std()) / math.sqrt(len(kl))
        return Figures(
            positions=self.positions,
            max_difference=self._largest,
            mean_difference=self._absolute / max(1, self._numbers),
            relative_error=relative_error,
            top1=self._agree / self.positions if self.kind != "values" else None,
            top5=self._in_five / self.positions if choice and self._in_five else None,
            flips=flips,
            near_ties=self._near,
            kl_mean=float(kl.mean()) if kl is not None else None,
            kl_p99=float(np.quantile(kl, 0.99)) if kl is not None else None,
            kl_max=float(kl.max()) if kl is not None else None,
            perplexity=_perplexity(self._loss),
            source_perplexity=_perplexity(self._source_loss),
            standard_errors=standard_errors,
        )


def _relative_error(squares: Floats, spread: Floats) -> tuple[float, float]:
    """Return the root of a ratio of two sums over positions, and its standard error (Cochran, 1977, section 2.11)."""
    total = max(float(spread.sum()), 1e-30)
    ratio = float(squares.sum()) / total
    if ratio == 0:
        return 0.0, 0.0
    error = math.sqrt(float(np.square(squares - ratio * spread).sum())) / total
    return math.sqrt(ratio), error / (2 * math.sqrt(ratio))


def _spread(rows: Floats) -> Floats:
    """Return the standard deviation of each row, at least a tenth of its root mean square: the deviation of nearly
    equal numbers is only their rounding."""
    size = np.sqrt(np.square(rows).mean(-1))
    found: Floats = np.maximum(rows.std(-1), np.float32(0.1) * size)
    return found


def log_softmax(logits: Floats) -> Floats:
    """Return log-probabilities in nats, [..., C]."""
    shifted = logits - logits.max(-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    result: Floats = shifted
    return result


def _perplexity(losses: list[Floats]) -> float | None:
    # The bound keeps the figure of a broken model finite.
    return float(np.exp(min(np.concatenate(losses).mean(dtype=np.float64), 80.0))) if losses else None
