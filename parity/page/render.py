"""Render a report as a page: choose what is shown, and in which order."""

from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..report.report import Report
from ..report.result import VERDICTS, CaseResult, Continuation, Figures, Limit
from . import mosaic, numerals, pictures, visible, words
from .margins import bound, margins
from .plots import log_axis
from .reasons import faulty, reasons

_TEMPLATE = "report.html.jinja"


REASONS = 4
"""Largest number of reasons below the verdict."""
ROUNDING = 1e-5
"""The largest divergence that is only rounding; tokens with less are not listed."""


class Column(NamedTuple):
    """A column of the table of cases: the field of ``Figures``, heading, heading of its group, and formatter."""

    field: str
    heading: str
    group: str
    show: Any


COLUMNS = (
    Column("positions", "positions", "", "{:,}".format),
    Column("max_difference", "max", "difference", numerals.number),
    Column("mean_difference", "mean", "difference", numerals.number),
    Column("relative_error", "relative", "difference", numerals.number),
    Column("kl_mean", "mean", "KL divergence, nats", numerals.number),
    Column("kl_p99", "99th pct.", "KL divergence, nats", numerals.number),
    Column("kl_max", "max", "KL divergence, nats", numerals.number),
    Column("top1", "top-1", "same choice", numerals.share),
    Column("top5", "top-5", "same choice", numerals.share),
    Column("flips", "flips", "same choice", "{:,}".format),
    Column("near_ties", "near-ties", "same choice", "{:,}".format),
    Column("source_perplexity", "source", "perplexity", numerals.number),
    Column("perplexity", "artifact", "perplexity", numerals.number),
)


def render(report: Report) -> str:
    """Return the page of a report as HTML; all texts are escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible.plain(value) if type(value) is str else value,
    )
    environment.filters.update(
        number=numerals.number,
        tick=numerals.tick,
        share=numerals.share,
        size=numerals.size,
        duration=numerals.duration,
        times=numerals.times,
        token=visible.token,
        passage=visible.passage,
        onward=visible.onward,
        operator=words.operator,
        reason=lambda text: words.reason(text, report.task),
    )
    return environment.get_template(_TEMPLATE).render(
        report=report,
        reasons=reasons(report),
        shown=REASONS,
        name=words.last_part(report.artifact),
        source=words.model_name(report.source),
        verdict=words.VERDICT[report.verdict],
        meaning=words.meaning(report),
        card=words.card(report),
        copy=words.copy_of(report),
        unit=words.unit(report.task),
        place=words.place(report.task),
        worst=worst_case(report),
        others=others(report),
        worst_tokens=[found for found in report.worst_tokens if found.kl > ROUNDING],
        columns=columns([case.figures for case in report.cases], report),
        reference_columns=columns([f for r in report.references for f in (r.source, r.artifact)], report),
        headlines=headlines(report),
        skipped=words.POINTLESS.get(report.task, ()),
        limits=[(words.measure(limit.measure, report.task), *_bounds(limit), limit.reason) for limit in report.limits],
        findings=_findings(report),
        faulty=faulty(report),
        costly=mosaic.worst(mosaic.matrices(report.tensors), 3),
        form=mosaic.form,
        plots=_plots(report),
        heat=pictures.heat_range(report.kl_by_position) if report.kl_by_position else None,
        shades=mosaic.shades(mosaic.matrices(report.tensors)),
        fit=pictures.fit(pictures.finite(report.logits)),
        overflown=len(report.logits) - len(pictures.finite(report.logits)),
        continuations=[
            (c, *parted(c), Markup(pictures.tokens(f"continuation-{index}", c.agreed, c.tokens, c.near_tie)))
            for index, c in enumerate(report.continuations)
        ],
    )


def worst_case(report: Report) -> CaseResult | None:
    """Return the case whose figures are shown first.

    Of the cases with the worst verdict that are at least half as far from the source as the furthest of them, it is
    the one with the most positions.
    """
    distances = _distances(report)
    verdict = max((VERDICTS.index(case.verdict) for case, _, _ in distances), default=0)
    found = [entry for entry in distances if VERDICTS.index(entry[0].verdict) == verdict]
    furthest = max((distance for _, _, distance in found), default=0.0)
    near = [(case, positions) for case, positions, distance in found if distance >= furthest / 2]
    return max(near, key=lambda pair: pair[1], default=(None, 0))[0]


def others(report: Report) -> int:
    """Return the number of other cases, or 0 if one of them is more than twice as far off as the worst case."""
    distances = _distances(report)
    shown = [distance for case, _, distance in distances if case is worst_case(report)]
    return len(distances) - 1 if shown and all(distance <= 2 * shown[0] for _, _, distance in distances) else 0


def _distances(report: Report) -> list[tuple[CaseResult, int, float]]:
    """Return the cases that ran, with their positions and their distances from the source, all by the same measure."""
    ran = [(case, case.figures) for case in report.cases if case.figures]
    if all(figures.kl_mean is not None for _, figures in ran):
        return [(case, figures.positions, figures.kl_mean or 0.0) for case, figures in ran]
    return [(case, figures.positions, figures.relative_error) for case, figures in ran]


def columns(figures: list[Figures | None], report: Report) -> list[tuple[str, list[Column]]]:
    """Return the columns that have values, by group."""
    groups: dict[str, list[Column]] = {}
    for column in COLUMNS:
        values = [getattr(entry, column.field) for entry in figures if entry]
        if any(value is not None for value in values) and column.field not in words.POINTLESS.get(report.task, ()):
            heading = words.heading(column.field, report.task) or column.heading
            groups.setdefault(column.group, []).append(column._replace(heading=heading))
    return list(groups.items())


def headlines(report: Report) -> list[tuple[str, str, str]]:
    """Return the main figures of the worst case: (name, figure, remark)."""
    case = worst_case(report)
    if case is None or case.figures is None:
        return []
    found, skipped = case.figures, words.POINTLESS.get(report.task, ())
    lines = []
    if found.kl_mean is not None:
        lines.append(("KL divergence", numerals.number(found.kl_mean), f"nats a {words.place(report.task)}, mean"))
    else:
        lines.append(("Relative error", numerals.number(found.relative_error), "of the outputs, root mean square"))
    if "top1" not in skipped:
        flips = f"{found.flips:,} {'flip' if found.flips == 1 else 'flips'} in {found.positions:,}"
        lines.append((words.measure("top1", report.task), numerals.share(found.top1), flips))
    if found.perplexity is not None and found.source_perplexity is not None:
        remark = f"from {numerals.number(found.source_perplexity)}"
        lines.append(("Perplexity", numerals.change(found.source_perplexity, found.perplexity), remark))
    lines.append((f"Largest difference of {words.unit(report.task)}", numerals.number(found.max_difference), ""))
    return lines


def _bounds(limit: Limit) -> tuple[str, str]:
    return bound(limit, limit.faithful), bound(limit, limit.drifted)


def parted(found: Continuation) -> tuple[str, str]:
    """Return the text that artifact and source share, and the rest, which only the artifact generates.

    If tokens differ within a character, the character belongs to the rest.
    """
    if found.agreed >= found.tokens:
        return found.text, ""
    pairs = zip(found.text, found.agreed_text, strict=False)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return found.text[:shared], found.text[shared:]


def _findings(report: Report) -> list[tuple[Any, Markup]]:
    axis = log_axis(value for f in report.findings for value in (f.budget / 3, f.error * 2))
    return [
        (finding, Markup(pictures.over_budget(f"finding-{index}", finding.error, finding.budget, axis)))
        for index, finding in enumerate(report.findings)
    ]


def _plots(report: Report) -> dict[str, Markup | None]:
    """Return the plots by name; None where there is nothing to draw."""
    unit = words.unit(report.task)
    drawn = {
        "margins": margins(report),
        "layers": pictures.error_by_layer(report.layers, report.findings) if report.layers else None,
        "positions": pictures.divergence_by_position(windows) if (windows := _windows(report)) else None,
        "calibration": pictures.calibration(pairs, unit) if (pairs := pictures.finite(report.logits)) else None,
        "differences": pictures.differences(pairs, unit) if pairs else None,
        "mosaic": mosaic.mosaic(report.tensors),
    }
    return {name: Markup(svg) if svg else None for name, svg in drawn.items()}


def _windows(report: Report) -> list[tuple[float, ...]]:
    return [window for window in report.kl_by_position if window]
