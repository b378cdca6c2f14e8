"""Running the matrix: make an artifact, run it in every runtime, compare with intaglio."""

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from intaglio.artifact import read_manifest
from intaglio.exporter import QuantizeOptions, export
from intaglio.files.generation_settings import checkpoint_settings

from .cases import NEW_TOKENS, Case
from .checkpoints import checkpoint
from .environments import RUNTIMES, UnavailableError, command, variables
from .expected import expected
from .float_activations import float_outputs
from .outcome import Outcome, judge
from .record import Record

LIMIT_S = 1200
WITH_FLOATS = (
    "the tokens of the same graph with float activations: WebAssembly has no kernels for int8 activations, which the "
    "graph asks for, and a choice between two close tokens may fall otherwise"
)
Report = Callable[[Case, str, Outcome], None]


def run(chosen: Iterable[Case], runtimes: Sequence[str], record: Record, report: Report) -> None:
    """Run cases in runtimes, keys of ``RUNTIMES``, and add the outcomes to a record; leave out what it has.

    Args:
        report: called with each outcome.
    """
    remaining = {case: [name for name in runtimes if not record.has(case, name)] for case in chosen}
    commands: dict[str, list[str] | UnavailableError] = {}
    for name in dict.fromkeys(name for missing in remaining.values() for name in missing):
        try:
            commands[name] = command(RUNTIMES[name])
        except UnavailableError as error:
            commands[name] = error
    for case, missing in remaining.items():
        for name in [name for name in missing if isinstance(commands[name], UnavailableError)]:
            record.add(case, name, Outcome("not run", str(commands[name])))
            missing.remove(name)
        if not missing:
            continue
        with tempfile.TemporaryDirectory(prefix="intaglio-interop-") as place:
            folder = Path(place)
            artifact = _artifact(case, folder)
            fields = case.fields(str(artifact))
            (folder / "case.json").write_text(json.dumps(fields), encoding="utf-8")
            references = {
                alone: [
                    expected(artifact, texts or [], NEW_TOKENS, alone=alone) for texts in (case.texts, fields["batch"])
                ]
                for alone in {RUNTIMES[name].alone for name in missing}
            }
            ends = checkpoint_settings(artifact, read_manifest(artifact).model.vocab_size).end_tokens
            for name in missing:
                start = commands[name]
                assert not isinstance(start, UnavailableError)
                found = _result(start, folder)
                if "runtime" in found:
                    record.versions[name] = str(found["runtime"])
                outputs, batch = references[RUNTIMES[name].alone]
                outcome = judge(case.task, case.precision, found, outputs, batch or None, ends)
                if outcome.kind == "differs" and RUNTIMES[name].wasm and case.precision in ("int8", "int4"):
                    other = float_outputs(fields)
                    again = judge(case.task, case.precision, found, other["outputs"], other["batch"], ends)
                    if again.kind == "same":
                        outcome = Outcome("same", "; ".join(filter(None, (WITH_FLOATS, again.reason))))
                record.add(case, name, outcome)
                report(case, name, record.outcomes[case][name])


def _artifact(case: Case, folder: Path) -> Path:
    """Return the artifact of a case; export it to ``folder`` unless the source is one."""
    source = Path(case.source) if case.source else checkpoint(folder / "checkpoint", case.family, case.task)
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


def _result(start: Sequence[str], folder: Path) -> dict[str, object]:
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
