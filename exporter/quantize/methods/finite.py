"""Checks for values that cannot be quantized or used in calibration; errors name the tensor."""

import torch
from torch import Tensor

from ....errors import UnsupportedError
from .rtn import HALF_MAX


def check_finite(tensor: Tensor, *names: str) -> None:
    """Check that a tensor holds finite values only.

    Raises:
        UnsupportedError: it holds NaN or infinite values.
    """
    if tensor.numel() and not torch.isfinite(tensor.abs().max()):
        raise UnsupportedError(
            f"{', '.join(names)}: holds NaN or infinite values, which cannot be quantized; "
            "the checkpoint is damaged: fetch it again"
        )


def check_quantizable(weight: Tensor, *names: str) -> None:
    """Check that a weight holds finite values in the range of a float16 scale.

    Raises:
        UnsupportedError: it holds NaN, infinite values, or one that no block can hold.
    """
    check_finite(weight, *names)
    if weight.numel() and (largest := weight.abs().max()) > HALF_MAX:
        raise UnsupportedError(
            f"{', '.join(names)}: a value of {largest.item():.4g} is beyond what a float16 scale can reach; "
            "leave this tensor in float with --keep"
        )
