"""The outcomes as the table of docs/inputs.md, with the reasons below it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from intaglio.tests.inputs.outcome import Outcome

from .record import Key, Record

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "inputs.md"
BEGIN, END = "<!-- begin: scripts/inputs -->\n", "\n<!-- end: scripts/inputs -->"
CARRIED = "carried over exactly"
FAMILY = {"qwen2": "Qwen2", "exaone4": "EXAONE 4.0"}
HEADER = ("format", "variant", "made by", "as it is", "anew instead")


def write(text: str) -> None:
    """Write the table between the markers of the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{text}{END}{rest.split(END)[1]}", encoding="utf-8")


def written() -> str:
    """Return the table that the page has."""
    return PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]


def table(record: Record) -> str:
    """Return the table: a row for each case, its families apart where their outcomes differ."""
    reasons: dict[str, int] = {}
    lines = [f"| {' | '.join(HEADER)} |", "| --- " * len(HEADER) + "|"]
    for names, found in _cases(record.outcomes).items():
        cells = [as_it_is(found, reasons), instead(found.values())]
        lines.append(f"| {' | '.join([*map(_escaped, names), *cells])} |")
    notes = [f"{number}. {_escaped(reason)}" for reason, number in reasons.items()]
    return "\n".join([*lines, "", *notes, *([""] if notes else [])])


def _cases(outcomes: Mapping[Key, Outcome]) -> dict[tuple[str, str, str], dict[str, Outcome]]:
    found: dict[tuple[str, str, str], dict[str, Outcome]] = {}
    for (format, variant, made_by, family), outcome in outcomes.items():
        found.setdefault((format, variant, made_by), {})[family] = outcome
    return dict(sorted(found.items(), key=lambda item: item[0][0].lower()))


def as_it_is(found: Mapping[str, Outcome], reasons: dict[str, int]) -> str:
    """Return the cell of a case's export as it is, with the numbers of its reasons."""
    cells = {family: _as_it_is(outcome, reasons) for family, outcome in found.items()}
    if len(set(cells.values())) == 1:
        return next(iter(cells.values()))
    return "; ".join(f"{FAMILY[family]}: {cell}" for family, cell in sorted(cells.items(), reverse=True))


def _as_it_is(outcome: Outcome, reasons: dict[str, int]) -> str:
    if outcome.kind == "merged":
        return "merged, as fp32"
    if outcome.kind == "carried":
        return f"codes and scales exactly, offsets in float32: {outcome.reason}" if outcome.reason else CARRIED
    return f"refused ({reasons.setdefault(outcome.reason, len(reasons) + 1)})"


def instead(outcomes: Iterable[Outcome]) -> str:
    """Return the cell of what a refusal offers: the larger error of its families, by precision."""
    errors: dict[str, float] = {}
    for outcome in outcomes:
        for precision, error in outcome.errors.items():
            errors[precision] = max(error, errors.get(precision, 0.0))
    rounded = [f"{name}: {100 * error:.1g} %" for name, error in errors.items()]
    return "; ".join(["fp32: exactly", *rounded]) if rounded else ""


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
