"""Every stored weight against the checkpoint's: decoded from the operators' specifications, not by the exporter's code.

stored, layouts, tables (what the bytes are) ┐
expected, folds, unfold (the source's numbers) ┴─▶ comparison ─▶ weights ─▶ TensorError
diagnosis, blockwise, likeness: what is wrong with one, in words
rotary, constants: what follows from the config
"""

from .audit import audit

__all__ = ["audit"]
