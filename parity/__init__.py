"""Source and artifact side by side: is this the same model, and if not, where did it go wrong?

    check ─▶ source (layer by layer) ┐
         └─▶ trials (the artifact)   ┴─▶ measures ─▶ thresholds ─▶ Report ─▶ page, record
         └─▶ audit (weights), locate (operators) ─────────────────────┘

``check(artifact, source)`` gives a ``Report``, ``render`` makes a page of it, ``record`` puts it into the artifact.
"""

from .check import CheckOptions, check
from .page import render
from .record import record
from .report.result import Report

__all__ = ["CheckOptions", "Report", "check", "record", "render"]
