"""Compare the codes of a weight that was carried over from a quantized checkpoint with the checkpoint's own.

source (the checkpoint's codes, scales, zero points, offsets) ─▶ comparison ─▶ diagnosis ◀─ columns, block_values
"""

from .comparison import compare_codes
from .diagnosis import diagnose_codes
from .source import source_codes

__all__ = ["compare_codes", "diagnose_codes", "source_codes"]
