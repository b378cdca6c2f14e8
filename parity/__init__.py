"""Compare an artifact with the checkpoint it was made from, and locate what differs.

    check ─▶ source (layer by layer) ┐
         └─▶ cases (the artifact)    ┴─▶ tally ─▶ thresholds ─▶ Report ─▶ page, record
         └─▶ audit (weights), locate (operators) ─────────────────────┘

``check(artifact, source)`` returns a ``Report``, ``render`` returns its page, ``record`` writes it into the artifact.
"""

from .check import check
from .options import CheckOptions
from .page import render
from .record import record
from .report.report import Report

__all__ = ["CheckOptions", "Report", "check", "record", "render"]
