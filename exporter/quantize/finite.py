"""Numbers that cannot be quantized, or calibrated with: refused with the name of the tensor that holds them."""

import torch
from torch import Tensor

from ...errors import UnsupportedError


def check_finite(tensor: Tensor, *names: str) -> None:
    """
    Raises:
        UnsupportedError: it holds NaN or infinite values.
    """
    if tensor.numel() and not torch.isfinite(tensor.abs().max()):
        raise UnsupportedError(
            f"{', '.join(names)}: holds NaN or infinite values, which cannot be quantized; "
            "the checkpoint is damaged: fetch it again"
        )
