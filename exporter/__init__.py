"""From a checkpoint to an artifact folder: ``export``, and ``quantize`` with its options."""

from ..models.adapters.given import Adapter
from .export import export, quantize
from .quantize.options import QuantizeOptions

__all__ = ["Adapter", "QuantizeOptions", "export", "quantize"]
