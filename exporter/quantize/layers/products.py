"""Products in bfloat16, where the processor has instructions for them: several times as fast as float32.

Their error, 0.2 % of each factor, is far smaller than the variation between tokens. Sums are float32. With AVX512-BF16
and no AMX, oneDNN multiplies float32 as it is; that is still twice as fast on AMD as MKL, which PyTorch asks otherwise.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def multiplies_bf16() -> bool:
    """Return true if the processor has bfloat16 instructions; emulated, bfloat16 is slower than float32."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # torch has no public function for it
    return supported is not None and bool(supported())


def rounds_float32() -> bool:
    """Return true if ``bfloat16_products`` rounds the factors: oneDNN does so for AMX alone."""
    amx = getattr(torch.cpu, "_is_amx_tile_supported", None)  # no public function either
    return multiplies_bf16() and amx is not None and bool(amx())


def autocast() -> torch.autocast:
    """Return a context in which layers run in bfloat16."""
    return torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bf16())


@contextmanager
def bfloat16_products() -> Iterator[None]:
    """Let float32 matrices be multiplied in bfloat16, and return float32; small ones may be multiplied as they are.

    (A bfloat16 result would not do for the sums of x x^T: each of its elements is rounded, and it is not positive
    semidefinite any more.)
    """
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    before = matmul.fp32_precision
    if multiplies_bf16():
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def as_multiplied(rows: Tensor) -> Tensor:
    """Return x as ``bfloat16_products`` multiplies it, float32.

    Where parts of x x^T are computed apart, one may be multiplied in float32 and another not: of the same x all agree,
    and their sum is positive semidefinite.
    """
    return rows.bfloat16().float() if rounds_float32() else rows
