"""Fuzz the kernels.

    python -m intaglio.tests.runtime.kernels.fuzz differential --cases 2000 --seed 1 --report out.json
    python -m intaglio.tests.runtime.kernels.fuzz mutations --cases 5000

A case is found again with its seed and number: ``--seed S --first NUMBER --cases 1``.
"""

import argparse
import sys
from pathlib import Path

from intaglio.runtime import kernels

from .supervise import Report, fuzz

EVERY = 100  # cases between lines of progress


def main() -> None:
    """Run one fuzzer; exit with 1 if it finds something."""
    parser = argparse.ArgumentParser(description="Fuzz intaglio's kernels.")
    parser.add_argument("mode", choices=["differential", "mutations"])
    parser.add_argument("--cases", type=int, default=1000, metavar="N", help="how many (1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="what they are drawn from (0)")
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="the number of the first (0)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write totals and findings as JSON")
    given = parser.parse_args()
    if kernels.instructions() is None:
        print("skipped: there are no compiled kernels for this processor")
        return
    report = fuzz(given.mode, given.cases, given.seed, given.first, _progress)
    print(report.text())
    if given.report is not None:
        report.write(given.report)
    sys.exit(1 if report.findings else 0)


def _progress(report: Report) -> None:
    if report.cases % EVERY == 0:
        print(f"{report.cases} cases, {len(report.findings)} findings", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
