"""Where an artifact went wrong, and why.

places (where the definition's modules are in a graph) ─▶ probe (pieces of the graph, run by themselves)
batches (what they are run on) ─▶ walk (layer, ends, heads: every operator on the source's numbers) ─▶ budgets
symptoms ─▶ hypotheses, attention_mistakes (usual mistakes, tried out) ─▶ judgement ─▶ Finding
"""

from .probe import layer_errors
from .walk import locate

__all__ = ["layer_errors", "locate"]
