"""The proof that goes with an export: the artifact just written is compared with its source."""

from collections.abc import Callable
from pathlib import Path

from ..artifact import MANIFEST, read_manifest
from ..errors import CheckError, DependencyError, UnsupportedError
from .verdict import note

Report = Callable[[str, int, int], None]


def check_runtime(out: Path) -> None:
    """Before anything long begins.

    Raises:
        DependencyError: there is no onnxruntime to run the artifact with.
    """
    from ..runtime.engine.onnxruntime import import_onnxruntime

    try:
        import_onnxruntime()
    except DependencyError as error:
        raise DependencyError(f"{error}; or give --no-parity to write {out} unchecked") from None


def prove(source: str, out: Path, revision: str | None, progress: Report) -> str:
    """Check the new artifact and put the verdict into it; returns the verdict, ``not checked`` where that cannot be.

    Raises:
        CheckError: it is broken; the artifact says so, and the runtime does not load it.
    """
    from ..parity import CheckOptions, check, record
    from ..parity.opening import memory_shortage

    if (Path(source) / MANIFEST).exists():
        note(f"{out} is not checked: {source} is an artifact; run `intaglio parity {out} --source CHECKPOINT --record`")
        return "not checked"
    if shortage := memory_shortage(out, read_manifest(out)):
        note(f"{out} is not checked: {shortage}")
        return "not checked"
    try:
        report = check(out, source, options=CheckOptions(verified=True), revision=revision, progress=progress)
    except UnsupportedError as error:
        note(f"{out} is not checked: {error}")
        return "not checked"
    record(out, report)
    if report.verdict == "broken":
        reasons = "".join(f"\n  {reason}" for reason in report.reasons[:8])
        raise CheckError(f"{out} is broken: it is not the model it was made from; see {out / 'parity.html'}{reasons}")
    return report.verdict
