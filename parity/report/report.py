"""The report of a check, and its format: README.md ("The parity report") describes ``parity.json`` field by field."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from ...artifact import Precision, Target, Task
from .result import (
    Carried,
    CaseResult,
    Continuation,
    Finding,
    LayerError,
    Limit,
    Reference,
    TensorError,
    Verdict,
    WorstToken,
)

FORMAT_VERSION = 1
DAMAGE = "damage"
"""The key of ``TensorError.kl_estimate`` in ``parity.json``."""


@dataclass(frozen=True)
class Report:
    """The result of a whole check.

    ``kl_by_position`` is the divergence at each position of the text, window by window; ``logits`` are sampled pairs
    (source's, artifact's); ``not_compared`` names what was left out, and why; ``command`` makes the report again;
    ``date`` is the time of the check, in UTC; ``carried`` counts the weights with the codes of a quantized checkpoint.
    """

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
    cases: tuple[CaseResult, ...]
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
    carried: Carried | None = None
    format_version: int = FORMAT_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of ``parity.json``."""
        fields = asdict(self)
        fields["tensors"] = [_rename(tensor, "kl_estimate", DAMAGE) for tensor in fields["tensors"]]
        return fields

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _rename(fields: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Return the fields in the same order, one of them with another name."""
    return {new if name == old else name: value for name, value in fields.items()}
