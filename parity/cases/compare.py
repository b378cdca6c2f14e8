"""Run the cases through the artifact, and compare each with the source."""

from collections.abc import Callable, Sequence

from ...artifact import Manifest
from ...errors import InputError
from ..report.result import CaseResult, Limit
from ..report.tally import Tally, kind_of
from ..report.thresholds import NOISE, judge, standard_of
from .case import Case, blocks
from .sessions import Sessions
from .source_model import SourceModel

WORST = 12
"""Number of the worst tokens that a report shows, of the first case."""
PADDING_ERRORS = ("a row of attention_mask", "seqlens_k")
"""What the error names when a sequence begins with padding: the mask, or GroupQueryAttention's input in artifacts whose
graph has no check of its own."""
REFUSED = "sequences that begin with padding are refused, not computed wrongly; target standard computes them"


def compare_cases(
    cases: Sequence[Case],
    manifest: Manifest,
    sessions: Sessions,
    model: SourceModel,
    limits: tuple[Limit, ...],
    advance: Callable[[int, int], None],
) -> tuple[tuple[CaseResult, ...], Tally]:
    """Return the results in the order of the cases, and the tally of one case, which has the worst tokens.

    Cases that need the same session run one after the other, so that one session is open at a time.
    """
    results: dict[int, CaseResult] = {}
    main: Tally | None = None
    for done, number in enumerate(sorted(range(len(cases)), key=lambda number: cases[number].decodes)):
        advance(done, len(cases))
        tally = Tally(kind_of(manifest.task, manifest.model), NOISE[standard_of(manifest)], keep=0 if main else WORST)
        results[number] = _compare(cases[number], sessions, model, tally, limits)
        main = main or tally
    advance(len(cases), len(cases))
    assert main is not None
    return tuple(results[number] for number in range(len(cases))), main


def _compare(case: Case, sessions: Sessions, model: SourceModel, tally: Tally, limits: tuple[Limit, ...]) -> CaseResult:
    try:
        for index, first, rows in blocks(case.run(sessions.get(case.decodes))):
            passage = case.passages[index]
            following = passage.tokens[first + 1 : first + 1 + len(rows)] if model.task == "text-generation" else None
            wanted = model.outputs(passage, first, len(rows))
            tally.add(wanted, rows, following=following, passage=index, first=first)
            del wanted, rows  # the next pass needs the memory
    except InputError as error:
        if case.may_refuse and any(name in str(error) for name in PADDING_ERRORS):
            return CaseResult(case.name, case.what, "faithful", refused=REFUSED)
        return CaseResult(case.name, case.what, "broken", refused=str(error), reasons=("the artifact does not run",))
    figures = tally.figures()
    verdict, reasons = judge(figures, limits)
    return CaseResult(case.name, case.what, verdict, figures, reasons=reasons)
