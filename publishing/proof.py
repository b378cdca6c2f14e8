"""The figures of ``parity.json`` that a model card shows."""

from dataclasses import dataclass

from ..files.json_fields import JSONFields
from ..files.json_file import parse_json

SHOWN_REASONS = 5


@dataclass(frozen=True)
class Proof:
    """The comparison with the source, over ``positions`` of ``text``; figures that the task does not have are None.

    ``equal`` of ``continuations`` greedy continuations are the source's to the last token.
    """

    text: str
    date: str
    positions: int
    max_difference: float | None
    top1: float | None
    kl_mean: float | None
    perplexity: float | None
    source_perplexity: float | None
    continuations: int
    equal: int
    reasons: tuple[str, ...]
    more_reasons: int


def parse_proof(content: bytes | None) -> Proof | None:
    """Return the figures of a report; None where there is none that can be read."""
    if content is None:
        return None
    try:
        values = parse_json(content)
        return _proof(JSONFields(values if isinstance(values, dict) else {}, "parity.json"))
    except ValueError:
        return None


def _proof(report: JSONFields) -> Proof:
    """Raises: ValueError: a field is missing or of another kind."""
    cases = [case.fields("figures") for case in report.list_of_fields("cases") or []]
    figures = next((found for found in cases if found is not None), None)
    text, date = report.text("text"), report.text("date")
    if figures is None or text is None or date is None:
        raise report.bad("cases", "a case with figures, beside text and date")
    continuations = report.list_of_fields("continuations") or []
    reasons = report.texts("reasons") or []
    return Proof(
        text=text,
        date=date.partition("T")[0],
        positions=figures.integer("positions", least=1) or 0,
        max_difference=figures.number("max_difference"),
        top1=figures.number("top1"),
        kl_mean=figures.number("kl_mean"),
        perplexity=figures.number("perplexity"),
        source_perplexity=figures.number("source_perplexity"),
        continuations=len(continuations),
        equal=sum(one.integer("agreed") == one.integer("tokens") for one in continuations),
        reasons=tuple(reasons[:SHOWN_REASONS]),
        more_reasons=max(0, len(reasons) - SHOWN_REASONS),
    )
