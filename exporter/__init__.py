"""From a checkpoint to an artifact folder: ``export``, and ``quantize`` with its options."""

from .export import export, quantize
from .quantize.options import QuantizeOptions

__all__ = ["QuantizeOptions", "export", "quantize"]
