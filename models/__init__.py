"""The native definitions in PyTorch: ``load`` a checkpoint, or ``configure`` and ``create`` a model.

    config ─▶ family (Qwen2, EXAONE 4.0, Qwen2-MoE) ─▶ heads (five tasks) ─▶ loading, checkpoint

    model = load("Qwen2-0.5B-Instruct")
    model = create(configure("qwen2", hidden_size=896, num_hidden_layers=24), "token-classification")

A module's ``forward`` takes what transformers documents for its class, and returns what that class returns.
"""

from .checkpoint import load
from .family import configure
from .heads import create
from .reading.options import ReadOptions

__all__ = ["ReadOptions", "configure", "create", "load"]
