"""How fast this machine does what calibration consists of, measured within a few seconds on the model's shapes."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..quantize.formats.blocks import BlockFormat
from ..quantize.layers.products import autocast, bfloat16_products
from ..quantize.methods.gptq import Hessian, gptq
from ..quantize.methods.row_sources import CHUNK
from ..quantize.methods.rtn import round_to_nearest
from ..quantize.texts.generated import BATCH

TOKENS = 2048
MULTIPLICATIONS = 4e9
"""Multiply-adds of a measured matrix multiplication, at most."""

WIDTH, ROWS = 1024, 512
"""The largest K and N of the weight on which GPTQ is measured."""

FORMAT = BlockFormat(4, 32, symmetric=False)


@dataclass(frozen=True)
class Rates:
    """Seconds of each kind of work.

    Args:
        forward: of a multiply-add in a forward pass.
        product: of a multiply-add of float32 matrices that may be multiplied in bfloat16.
        float32: of a multiply-add in float32.
        few_rows: of a multiply-add in float32 where a batch of tokens is generated.
        factor: of factoring a Hessian [K, K], divided by K cubed.
        column: of a weight in GPTQ's loop over columns, the updates of later columns left out.
        rounding: of a weight that is rounded.
        writing: of a weight that is rounded, compared with itself and packed.
    """

    forward: float
    product: float
    float32: float
    few_rows: float
    factor: float
    column: float
    rounding: float
    writing: float


@torch.no_grad()
def measure_rates(rows: int, columns: int) -> Rates:
    """Measure them on a weight of [N, K]; larger ones are cut, so that it takes a few seconds.

    Args:
        rows: N.
        columns: K.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    inputs = random(TOKENS, columns)
    weight = random(max(1, min(rows, int(MULTIPLICATIONS / TOKENS / columns))), columns)

    def forward() -> None:
        with autocast():
            torch.nn.functional.linear(inputs, weight)

    def product() -> None:
        with bfloat16_products():
            torch.mm(inputs, weight.t())

    work = TOKENS * weight.numel()
    float32 = _seconds(lambda: inputs @ weight.t()) / work
    few = _seconds(lambda: inputs[:BATCH] @ weight.t()) / (BATCH * weight.numel())
    width, height = min(columns, WIDTH), min(rows, ROWS)
    part = weight[:height, :width].contiguous()
    gram = inputs[:, :width].t() @ inputs[:, :width] / TOKENS
    hessian = Hessian.of(gram.clone(), TOKENS)
    written = weight[: max(1, CHUNK // columns)].bfloat16()
    solving = _seconds(lambda: gptq(part, FORMAT, hessian))
    updates = float32 * part.numel() * width / 2
    return Rates(
        forward=_seconds(forward) / work,
        product=_seconds(product) / work,
        float32=float32,
        few_rows=few,
        factor=_seconds(lambda: Hessian.of(gram.clone(), TOKENS)) / width**3,
        column=max(solving - updates, solving / 10) / part.numel(),
        rounding=_seconds(lambda: round_to_nearest(part, FORMAT)) / part.numel(),
        writing=_seconds(lambda: _write(written)) / written.numel(),
    )


def _write(stored: torch.Tensor) -> None:
    """Do what is done to rows on their way into an artifact."""
    weight = stored.float()
    rows = round_to_nearest(weight, FORMAT)
    (rows.dequantize() - weight).square().sum()
    weight.square().sum()
    hashlib.sha256(rows.packed_codes().numpy().data)


def _seconds(work: Callable[[], object]) -> float:
    """Return the least time of two runs after a first one."""
    work()
    found = []
    for _ in range(2):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)
