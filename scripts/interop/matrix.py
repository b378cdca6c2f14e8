"""Running the matrix: make an artifact, run it in every runtime, compare with intaglio."""

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from intaglio.artifact import read_manifest
from intaglio.errors import IntaglioError
from intaglio.exporter import QuantizeOptions, export
from intaglio.files.generation_settings import checkpoint_settings

from .cases import NEW_TOKENS, Case
from .checkpoints import checkpoint
from .environments import RUNTIMES, Runtime, UnavailableError, command, variables
from .expected import expected
from .outcome import Outcome, judge

LIMIT_S = 300
Report = Callable[[Case, str, Outcome], None]


@dataclass(frozen=True)
class Matrix:
    """Outcomes by case and runtime, and each runtime's name with its version."""

    outcomes: Mapping[Case, Mapping[str, Outcome]]
    versions: Mapping[str, str]


def run(
    chosen: Iterable[Case], runtimes: Sequence[str], report: Report, sources: Mapping[str, Path] | None = None
) -> Matrix:
    """Run cases in runtimes, keys of ``RUNTIMES``.

    Args:
        report: called with each outcome.
        sources: checkpoints or artifacts of text generation by family, instead of the tiny ones.
    """
    commands: dict[str, list[str] | UnavailableError] = {}
    for name in runtimes:
        try:
            commands[name] = command(RUNTIMES[name])
        except UnavailableError as error:
            commands[name] = error
    outcomes: dict[Case, dict[str, Outcome]] = {}
    versions: dict[str, str] = {}
    for case in chosen:
        with tempfile.TemporaryDirectory(prefix="intaglio-interop-") as place:
            folder = Path(place)
            outcomes[case] = {}
            try:
                artifact = _artifact(case, folder, sources or {})
                fields = case.fields(str(artifact))
                batch = fields["batch"]
                outputs = expected(artifact, case.texts, NEW_TOKENS)
                rows = expected(artifact, batch, NEW_TOKENS) if batch else None
            except IntaglioError as error:
                outcomes[case] = dict.fromkeys(runtimes, Outcome("not run", f"intaglio refuses too: {error}"))
                continue
            ends = checkpoint_settings(artifact, read_manifest(artifact).model.vocab_size).end_tokens
            (folder / "case.json").write_text(json.dumps(fields), encoding="utf-8")
            for name in runtimes:
                started = commands[name]
                if isinstance(started, UnavailableError):
                    outcome = Outcome("not run", str(started))
                else:
                    found = _result(RUNTIMES[name], started, folder)
                    versions[name] = str(found.get("runtime", RUNTIMES[name].title))
                    outcome = judge(case.task, case.precision, found, outputs, rows, ends)
                outcomes[case][name] = outcome
                report(case, name, outcome)
    return Matrix(outcomes, versions)


def _artifact(case: Case, folder: Path, sources: Mapping[str, Path]) -> Path:
    """Return the artifact of a case; export it to ``folder`` unless the source is one."""
    source = sources.get(case.family) or checkpoint(folder / "checkpoint", case.family, case.task)
    if (source / "intaglio.json").is_file():
        return source
    # Blocks of 32 suit every runtime's kernels, and rounding to the nearest takes no calibration.
    options = QuantizeOptions(method="rtn", block_size=32) if case.precision in ("int8", "int4") else None
    export(
        source,
        folder / case.name,
        task=case.task,
        precision=case.precision,
        target=case.target,
        options=options,
    )
    return folder / case.name


def _result(runtime: Runtime, start: Sequence[str], folder: Path) -> dict[str, object]:
    """Run a runtime's program on the case in a folder; one that ends without a result has refused it."""
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    program = [*start, str(folder / "case.json"), str(result)]
    try:
        done = subprocess.run(
            program, env=variables(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return {"refused": f"no result after {LIMIT_S} s"}
    if not result.exists():
        lines = done.stdout.strip().splitlines() or ["no output"]
        return {"refused": f"the program ended with {done.returncode}: {lines[-1]}"}
    found: dict[str, object] = json.loads(result.read_text(encoding="utf-8"))
    return found
