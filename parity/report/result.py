"""The parts of a parity report: figures, cases, continuations, layers, weights, findings, tokens, limits.

Differences are differences of logits unless stated otherwise. Divergences are Kullback-Leibler divergences of the next
token's distribution from the source's, in nats.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["faithful", "drifted", "broken"]
VERDICTS: tuple[Verdict, ...] = ("faithful", "drifted", "broken")
"""From the best to the worst."""

STORED = "stored"
"""The manifest's method of a weight with the codes, scales and zero points that its checkpoint stores."""


@dataclass(frozen=True)
class Figures:
    """Distances of the artifact's outputs from the source's, over the ``positions`` of a case.

    ``relative_error`` is the root mean square of the differences, over that of the source's logits about their mean at
    each position. ``top1`` and ``top5`` are shares of positions: with the same most likely token; with the source's
    most likely token among the artifact's five. ``flips`` counts positions where the most likely token differs although
    the source prefers its own by more than the noise of the precision, ``near_ties`` those where it differs within that
    noise. Perplexities are over the same text; None if the case has no next tokens. For the other tasks, ``top1`` is
    the share of labels (tags, spans) that agree; embeddings have no ``top1``. ``standard_errors`` are those of
    ``relative_error``, ``kl_mean`` and the share of ``flips``, as if positions were drawn independently of each other.
    """

    positions: int
    max_difference: float
    mean_difference: float
    relative_error: float
    top1: float | None = None
    top5: float | None = None
    flips: int = 0
    near_ties: int = 0
    kl_mean: float | None = None
    kl_p99: float | None = None
    kl_max: float | None = None
    perplexity: float | None = None
    source_perplexity: float | None = None
    standard_errors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CaseResult:
    """The result of one way of running the artifact: ``name`` for programs, ``what`` in words.

    ``figures`` is None if the artifact refused to run it, with the reason in ``refused``; ``reasons`` name the limits
    that figures exceed.
    """

    name: str
    what: str
    verdict: Verdict
    figures: Figures | None = None
    refused: str | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Continuation:
    """A greedy continuation by the artifact; the source generates the same first ``agreed`` tokens.

    ``agreed_text`` is the text of these tokens, ``wanted`` the source's next token, empty if all tokens agree.
    ``near_tie`` is true if the source prefers that token by no more than the noise.
    """

    prompt: str
    text: str
    tokens: int
    agreed: int
    near_tie: bool = False
    agreed_text: str = ""
    wanted: str = ""


@dataclass(frozen=True)
class LayerError:
    """The relative error of the artifact's hidden state after a module, with all errors of the modules before it: the
    root mean square of the difference, over that of the source's hidden state."""

    module: str
    error: float


@dataclass(frozen=True)
class TensorError:
    """A stored weight, compared with the tensors of the checkpoint that it was made from.

    ``error`` is the root mean square of the difference over that of the source (0 if a float tensor is the same after
    rounding to its type), ``recorded`` the error that the manifest records, and ``kl_estimate`` the KL divergence in
    nats that the manifest estimates for it (``damage`` in parity.json). ``worst_block`` is the relative error of the
    worst block, and ``worst_row`` its row. ``fault`` says what is wrong with the weight, if anything. ``exact`` is true
    for codes, scales and zero points carried over from a quantized checkpoint that are its own, false where they had to
    be rounded, and None for other weights.
    """

    name: str
    module: str
    precision: str
    bits: int | None
    block_size: int | None
    method: str | None
    elements: int
    error: float
    recorded: float | None = None
    kl_estimate: float | None = None
    worst_block: float | None = None
    worst_row: int | None = None
    fault: str | None = None
    exact: bool | None = None


@dataclass(frozen=True)
class Carried:
    """The weights that hold the codes of a quantized checkpoint: how many, and how many numbers they have together.
    Of them, ``rounded`` have scales that the artifact could not hold exactly."""

    weights: int
    numbers: int
    rounded: int

    @staticmethod
    def of(tensors: Sequence[TensorError]) -> "Carried | None":
        """Return those among the stored weights; None if there are none."""
        found = [tensor for tensor in tensors if tensor.exact is not None and tensor.fault is None]
        if not found:
            return None
        numbers = sum(tensor.elements for tensor in found)
        return Carried(len(found), numbers, sum(not tensor.exact for tensor in found))

    def __str__(self) -> str:
        weights = f"{self.weights:,} weight{'s' * (self.weights != 1)}"
        rounded = f"; {self.rounded:,} with scales rounded to the type of the activations" if self.rounded else ""
        return f"carried over code for code: {weights}, {self.numbers:,} numbers{rounded}"


@dataclass(frozen=True)
class Finding:
    """A module or node that computes something else than the source, and the cause, if it is known.

    ``module`` is a path in the native definition (``model.layers.3.self_attn``), ``operator`` the graph's node there,
    ``error`` the relative error of this module alone, with the source's inputs, and ``budget`` the error that the
    precision allows. ``verdict`` is the artifact's verdict by this finding alone: "broken" for another function than
    the source's, "drifted" for a rounding that is too large.
    """

    module: str
    operator: str | None
    error: float
    budget: float
    cause: str
    verdict: Verdict = "broken"


@dataclass(frozen=True)
class WorstToken:
    """A position with a large divergence. ``before`` is the text up to it, ``wanted`` and ``got`` the most likely next
    tokens of the source and of the artifact, each with the probability that its own model gives it."""

    case: str
    position: int
    before: str
    wanted: str
    got: str
    wanted_probability: float
    got_probability: float
    kl: float


@dataclass(frozen=True)
class Reference:
    """Another implementation on the same text: its distance from the source, and the artifact's distance from it."""

    name: str
    source: Figures
    artifact: Figures


@dataclass(frozen=True)
class Limit:
    """The limits of a measure: up to ``faithful`` a copy is faithful, up to ``drifted`` it has drifted.

    ``positions`` is the number of positions that a figure must cover before ``faithful`` applies to it, where the
    figure is a mean that varies with the text; 0 where it does not, so that every figure counts.
    """

    measure: str
    faithful: float
    drifted: float
    reason: str
    positions: int = 0
