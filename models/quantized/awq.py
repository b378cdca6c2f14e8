"""AWQ checkpoints of AutoAWQ and others, in the layout ``gemm``.

A weight [N, K] of 4 bits is in ``qweight`` int32 [K, N / 8], ``qzeros`` int32 [G, N / 8] and ``scales`` [G, N], with
the 8 rows of a word in the order 0, 2, 4, 6, 1, 3, 5, 7: ``scale * (code - zero point)``. The scaling that AWQ applies
before it rounds is in the weights and norms already.

Source: AutoAWQ's WQLinear_GEMM, https://github.com/casper-hansen/AutoAWQ.
"""

from collections.abc import Mapping
from pathlib import Path

from ...errors import UnsupportedError
from ...files.json_fields import JSONFields, shown
from ..storage.store import TensorStore
from .gptq import REMEDY, check_bits, overridden, refuse
from .packed.members import Scheme
from .packed.weight import packed_weights
from .weights import QuantizedWeights

OLDER_KEYS: Mapping[str, str] = {"w_bit": "bits", "q_group_size": "group_size"}
"""The keys of AutoAWQ's own quant_config.json, and what config.json names the same."""


def read_awq(settings: JSONFields, store: TensorStore, folder: Path) -> QuantizedWeights:
    """Read the weights of an AWQ checkpoint.

    Raises:
        CheckpointError: settings and tensors contradict each other.
        UnsupportedError: the settings name a layout that is not read.
    """
    older = {new: settings.get(old) for old, new in OLDER_KEYS.items() if new not in settings}
    settings = JSONFields({**settings.values, **older}, settings.where)
    layout = (settings.text("version") or settings.text("format") or "gemm").lower()
    if layout != "gemm":
        raise UnsupportedError(
            f"{settings.where}: version = {shown(layout)} is a layout that is not read (gemm is read); {REMEDY}"
        )
    refuse(settings, "backend", ("autoawq", "auto"), "another library's layout")
    settings.boolean("zero_point")  # whichever it is, the zero points are stored
    bits, sizes = overridden(settings, iter(()))
    check_bits(settings, bits, (4,))
    scheme = Scheme("AWQ", settings.where, bits, sizes, zero_points="stored", awq=True)
    return packed_weights(store, scheme, folder)
