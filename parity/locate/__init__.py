"""Where an artifact differs from its source, and why.

The source and the artifact run side by side on the same inputs, and their activations are compared at the taps of each
layer. An error above its budget is a finding. Hypotheses, usual mistakes recomputed from the source, explain it: the
one that reproduces the artifact's activation is the cause.

    scenarios ─▶ source_run (the source's activations) ┐
    taps ─▶ tap_map ─▶ artifact_graph (the artifact's) ┴─▶ layer_checks, outer_checks ─▶ findings
    budgets (how far an activation may be off) ──────────────┘    hypotheses/ (why) ──────┘
"""

from .layer_errors import layer_errors
from .locate import locate

__all__ = ["layer_errors", "locate"]
