"""Products in bfloat16 with float32 sums."""

import pytest
import torch
from intaglio.exporter.quantize.layers.products import bfloat16_products, multiplies_bf16


def test_sums_are_those_of_rounded_inputs() -> None:
    rows = torch.randn(512, 256, generator=torch.Generator().manual_seed(0))
    rounded = rows.bfloat16().float() if multiplies_bf16() else rows
    gram = torch.zeros(256, 256)
    with bfloat16_products():
        gram.addmm_(rows.t(), rows)
    wanted = rounded.double().t() @ rounded.double()
    assert (gram - wanted).abs().max() < 1e-5 * wanted.abs().max()
    # A bfloat16 result would be further from it than its least eigenvalue.
    assert torch.linalg.eigvalsh(gram.double()).min() > 0.9 * torch.linalg.eigvalsh(wanted).min() > 0


def test_later_products_are_in_float32_again() -> None:
    rows = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    before = rows @ rows
    with pytest.raises(RuntimeError, match="stop"), bfloat16_products():
        raise RuntimeError("stop")
    assert torch.equal(rows @ rows, before)
