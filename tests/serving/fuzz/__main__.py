"""Send hostile requests to a server of the tiny checkpoints.

    python -m intaglio.tests.serving.fuzz --cases 1000 --seed 1

A case is found again with its seed and number: ``--seed S --first NUMBER --cases 1``.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from ..artifacts import export_all, export_heads
from .drive import Report, fuzz

EVERY = 100  # cases between lines of progress


def main() -> None:
    """Run the cases; exit with 1 if one is not answered as it should be."""
    parser = argparse.ArgumentParser(description="Fuzz intaglio's server.")
    parser.add_argument("--cases", type=int, default=1000, metavar="N", help="how many (1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="what they are drawn from (0)")
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="the number of the first (0)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        artifacts = export_all(Path(folder)) | export_heads(Path(folder))
        report = fuzz(artifacts, given.cases, given.seed, given.first, _progress)
    print(report.text())
    sys.exit(1 if report.findings else 0)


def _progress(report: Report) -> None:
    if report.cases % EVERY == 0:
        print(f"{report.cases} cases, {len(report.findings)} findings", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
