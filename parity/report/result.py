"""What a check found: the contents of ``parity.json``, which README.md ("The parity report") describes field by field.

Differences are of logits unless something else is said; divergences (Kullback-Leibler, of the next token's
distribution from the source's) are in nats.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ...artifact import Precision, Target, Task

FORMAT_VERSION = 1
Verdict = Literal["faithful", "drifted", "broken"]
VERDICTS: tuple[Verdict, ...] = ("faithful", "drifted", "broken")
"""From the best to the worst."""


@dataclass(frozen=True)
class Figures:
    """How far the artifact's numbers are from the source's, over the ``positions`` of a case.

    ``relative_error`` is the root mean square of the differences over that of the source's logits about their mean at
    each position. ``top1`` and ``top5`` are shares of positions: the likeliest token is the same; the source's
    likeliest is among the artifact's five. ``flips`` are positions where the likeliest differs although the source
    prefers its own by more than the noise of the precision, ``near_ties`` those where it differs within that noise.
    Perplexities are over the same text; None where the case has no next tokens. Of the heads, ``top1`` is the share of
    labels (spans, tags) that agree; embeddings have none.
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


@dataclass(frozen=True)
class Case:
    """One way of running the artifact: ``name`` for programs, ``what`` in words.

    ``figures`` is None where the artifact refused to run it, with the reason in ``refused``; ``reasons`` say which
    limit each figure exceeds.
    """

    name: str
    what: str
    verdict: Verdict
    figures: Figures | None = None
    refused: str | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Continuation:
    """A greedy continuation by the artifact, which the source would have gone on with for ``agreed`` tokens.

    ``agreed_text`` is what the text begins with and both say, ``wanted`` what the source would have gone on with, empty
    where it agrees to the end. ``near_tie`` tells whether the source was undecided, within the noise, at that token.
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
    """The artifact's hidden state behind a module, when the artifact runs by itself: the root mean square of its
    difference from the source's, over that of the source's."""

    module: str
    error: float


@dataclass(frozen=True)
class TensorError:
    """A stored weight against the tensors of the checkpoint that it was made from.

    ``error`` is the root mean square of the difference over that of the source (0 where a float tensor is the
    same after rounding to its type), ``recorded`` what the manifest says of it, ``damage`` the divergence that the
    manifest estimates it to cause. ``worst_block`` is the relative error of the worst block, and ``worst_row`` the row
    in which it is. ``fault`` says what is wrong with it, if anything.
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
    damage: float | None = None
    worst_block: float | None = None
    worst_row: int | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Finding:
    """Where the artifact went wrong, and why, as far as that can be told.

    ``module`` is a path in the native definition (``model.layers.3.self_attn``), ``operator`` the graph's node there,
    ``error`` the relative error that arises in this place alone, when everything before it is as in the source, and
    ``budget`` what the precision allows. ``verdict`` is what this alone makes of the artifact: another function than
    the source's is broken, a rounding that is too large has drifted.
    """

    module: str
    operator: str | None
    error: float
    budget: float
    cause: str
    verdict: Verdict = "broken"


@dataclass(frozen=True)
class WorstToken:
    """A position with much divergence. ``before`` is the text up to it, ``wanted`` and ``got`` what the source and the
    artifact would have gone on with, with their probabilities by the source and by the artifact."""

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
    """The same text through another implementation: its distance from the source, and the artifact's from it."""

    name: str
    source: Figures
    artifact: Figures


@dataclass(frozen=True)
class Limit:
    """A limit that was applied: up to ``faithful`` the copy is faithful, up to ``drifted`` it has drifted."""

    measure: str
    faithful: float
    drifted: float
    reason: str


@dataclass(frozen=True)
class Report:
    """A whole check. ``kl_by_position`` is the divergence at each position of the text, window by window;
    ``logits`` are pairs (source's, artifact's) drawn from the text; ``not_compared`` says what was left out, and why;
    ``command`` makes the report again; ``date`` is when this one was made, in UTC."""

    verdict: Verdict
    reasons: tuple[str, ...]
    artifact: str
    source: str
    digest: str
    family: str
    task: Task
    target: Target
    precision: Precision
    parameters: int
    bytes: int
    device: str
    text: str
    date: str
    seconds: float
    peak_rss_bytes: int | None
    limits: tuple[Limit, ...]
    cases: tuple[Case, ...]
    continuations: tuple[Continuation, ...]
    layers: tuple[LayerError, ...]
    tensors: tuple[TensorError, ...]
    findings: tuple[Finding, ...]
    worst_tokens: tuple[WorstToken, ...]
    kl_by_position: tuple[tuple[float, ...], ...]
    logits: tuple[tuple[float, float], ...]
    references: tuple[Reference, ...]
    not_compared: tuple[str, ...]
    tools: dict[str, str]
    machine: str
    command: str
    format_version: int = FORMAT_VERSION

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
