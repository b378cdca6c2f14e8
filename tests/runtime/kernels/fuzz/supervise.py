"""The run of a fuzzer: children judge the cases, so that a crash or a hang is one outcome of one case."""

import json
import os
import re
import selectors
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from .judge import REFUSED, RIGHT, draw

ROOT = Path(__file__).parents[4]
HANG = 60  # seconds for one case
PER_CHILD = 400  # cases
CRASH, HUNG = "crash", "hang"
THEIRS = "ONNX Runtime's own operator crashes"
SANITIZER = re.compile(r"ERROR: \w+Sanitizer: .*|.*: runtime error: .*")
FRAME = re.compile(r"#\d+ 0x\S+ in \S+ \S*runtime/kernels/native/\S+")


@dataclass(frozen=True)
class Finding:
    """A case whose outcome is none of those allowed."""

    seed: int
    number: int
    outcome: str
    detail: str
    case: str


@dataclass
class Report:
    """The totals of a run by outcome, for each operator, and the findings."""

    mode: str
    seed: int
    cases: int = 0
    totals: Counter[str] = field(default_factory=Counter)
    operators: dict[str, Counter[str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def add(self, number: int, outcome: str, detail: str, case: str) -> None:
        allowed = (RIGHT, THEIRS) if self.mode == "differential" else (RIGHT, REFUSED, THEIRS)
        self.cases += 1
        self.totals[outcome] += 1
        self.operators.setdefault(case.partition("(")[0], Counter())[outcome] += 1
        if outcome not in allowed:
            self.findings.append(Finding(self.seed, number, outcome, detail, case))

    def text(self) -> str:
        lines = [f"{self.mode}, seed {self.seed}: {self.cases} cases"]
        lines += [f"  {count:6d} {outcome}" for outcome, count in self.totals.most_common()]
        lines += [
            f"  {name}: {', '.join(f'{count} {outcome}' for outcome, count in totals.most_common())}"
            for name, totals in self.operators.items()
        ]
        lines += [
            f"  case {found.number}: {found.outcome}: {found.detail}\n    {found.case}" for found in self.findings
        ]
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        told = {
            "mode": self.mode,
            "seed": self.seed,
            "cases": self.cases,
            "totals": self.totals,
            "operators": self.operators,
            "findings": [asdict(found) for found in self.findings],
        }
        path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def fuzz(
    mode: str, cases: int, seed: int = 0, first: int = 0, told: Callable[[Report], None] = lambda report: None
) -> Report:
    """Judge ``cases`` cases from number ``first`` on.

    Args:
        mode: "differential" for cases that must be computed, "mutations" for those that may be refused.
        told: called after each case.
    """
    report = Report(mode, seed)
    number, end = first, first + cases
    while number < end:
        for ended, outcome, detail, case in _child(mode, seed, number, min(number + PER_CHILD, end)):
            report.add(ended, outcome, detail, case)
            number = ended + 1
            told(report)
    return report


def _child(mode: str, seed: int, first: int, last: int) -> Iterator[tuple[int, str, str, str]]:
    """Yield the outcomes of a child until it ends; the last one is its crash or hang, if it has one."""
    command = [sys.executable, "-m", f"{__package__}.child", mode, str(seed), str(first), str(last)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".dev"), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1)
        assert child.stdout is not None
        number, runs, hung = first, "the start of the process", False
        with child, selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while True:
                if not selector.select(HANG):
                    hung = True
                    child.kill()
                    break
                line = child.stdout.readline()
                if not line:
                    break
                said = json.loads(line)
                number = said["number"]
                if "runs" in said:
                    runs = said["runs"]
                    continue
                yield number, said["outcome"], said["detail"], said["case"]
                number, runs = number + 1, ""
        if hung or child.returncode != 0:
            case = draw(mode, seed, number).describe()
            detail = f"in {runs}" if hung else f"in {runs}, exit {child.returncode}: {_reason(errors)}"
            yield number, THEIRS if runs == "ONNX Runtime" else HUNG if hung else CRASH, detail, case


def _reason(errors: IO[str]) -> str:
    """Return what a sanitizer reports, with the first frames of the kernels; otherwise the last line."""
    errors.seek(0)
    text = errors.read()
    found = SANITIZER.search(text)
    if found is None:
        return next(iter(text.strip().splitlines()[-1:]), "no message")
    frames = [frame.rpartition("native/")[2] for frame in FRAME.findall(text)[:3]]
    return " ".join([found[0].strip(), *(["at", *frames] if frames else [])])
