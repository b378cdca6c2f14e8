"""Make an artifact, compare it with its source, and print a summary: what `export` and `quantize` share."""

import time
from collections.abc import Callable
from pathlib import Path

from ..artifact import MANIFEST, Manifest, read_manifest
from ..errors import CheckError, DependencyError, UnsupportedError
from .options import Making
from .parity_report import SHOWN_REASONS, note
from .progress import Report, Stopwatch, both, progress
from .summary import print_summary

NOT_CHECKED = "not checked"


def make_artifact(make: Callable[[Report], Manifest], source: str, out: Path, making: Making, as_json: bool) -> None:
    """Call ``make(progress)``, which writes ``out``; record its parity with ``source``; print the summary.

    Raises:
        DependencyError: onnxruntime is not installed, and the parity is to be checked.
        CheckError: the artifact is broken; it says so itself, and the runtime does not load it.
    """
    started = time.monotonic()
    if not making.no_parity:
        _check_onnxruntime(out)
    stopwatch = Stopwatch()
    with progress() as bars:
        report = both(stopwatch, bars)
        manifest = make(report)
        verdict = NOT_CHECKED if making.no_parity else _record_parity(source, out, making, report)
    print_summary(out, manifest, verdict, time.monotonic() - started, stopwatch.seconds, as_json)


def _check_onnxruntime(out: Path) -> None:
    """Check that onnxruntime is installed, before any long work starts."""
    from ..runtime.engine.onnxruntime import import_onnxruntime

    try:
        import_onnxruntime()
    except DependencyError as error:
        raise DependencyError(f"{error}; or give --no-parity to write {out} unchecked") from None


def _record_parity(source: str, out: Path, making: Making, report: Report) -> str:
    """Compare the artifact with its source and record the result in it; return the verdict, or ``not checked``."""
    from ..models.adapters.given import parse_adapter
    from ..parity import CheckOptions, check, record
    from ..parity.opening import memory_shortage

    if (Path(source) / MANIFEST).exists():
        note(f"{out} is not checked: {source} is an artifact; run `intaglio parity {out} --source CHECKPOINT --record`")
        return NOT_CHECKED
    if shortage := memory_shortage(out, read_manifest(out)):
        note(f"{out} is not checked: {shortage}")
        return NOT_CHECKED
    try:
        found = check(
            out,
            source,
            adapters=[parse_adapter(given) for given in making.adapters],
            options=CheckOptions(verified=True),
            revision=making.revision,
            progress=report,
        )
    except UnsupportedError as error:
        note(f"{out} is not checked: {error}")
        return NOT_CHECKED
    record(out, found)
    if found.verdict == "broken":
        reasons = "".join(f"\n  {reason}" for reason in found.reasons[:SHOWN_REASONS])
        raise CheckError(f"{out} is broken: it differs from its source; see {out / 'parity.html'}{reasons}")
    return found.verdict
