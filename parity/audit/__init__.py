"""Compare every stored tensor of an artifact with the checkpoint's tensors that it was made from.

Stored tensors are decoded from the operators' specifications and not by the exporter's code, so that an exporter's own
mistakes do not pass.

    reading (the numbers that the graph computes with) ────────┐
    expected, folds, fold_scales (the checkpoint's numbers) ───┴─▶ comparison ─▶ audit ─▶ TensorError
    hypotheses, block_hypotheses ─▶ diagnosis (the cause of a mismatch)
    rotary, evaluation (tensors that follow from config.json: RoPE's)
"""

from .audit import audit

__all__ = ["audit"]
