"""Products in bfloat16 with float32 sums."""

import pytest
import torch
from intaglio.exporter.quantize.layers.hessian import Moments
from intaglio.exporter.quantize.layers.products import as_multiplied, bfloat16_products, rounds_float32


def test_sums_are_those_of_rounded_inputs() -> None:
    rows = torch.randn(512, 256, generator=torch.Generator().manual_seed(0))
    rounded = rows.bfloat16().float() if rounds_float32() else rows
    gram = torch.zeros(256, 256)
    with bfloat16_products():
        gram.addmm_(rows.t(), rows)
    wanted = rounded.double().t() @ rounded.double()
    assert (gram - wanted).abs().max() < 1e-5 * wanted.abs().max()
    # A bfloat16 result would be further from it than its least eigenvalue.
    assert torch.linalg.eigvalsh(gram.double()).min() > 0.9 * torch.linalg.eigvalsh(wanted).min() > 0


def test_parts_of_a_sum_agree_whatever_they_are_multiplied_in() -> None:
    """Small products may be float32: if inputs were not rounded, a sum of few tokens would be indefinite."""
    moments = Moments(96, 8)
    generator = torch.Generator().manual_seed(0)
    with bfloat16_products():
        for tokens in (3, 5, 40):
            rows = as_multiplied(torch.randn(tokens, 96, generator=generator))
            moments.add(rows, torch.randn(tokens, 8, generator=generator))
    moments.complete()
    values = torch.linalg.eigvalsh(moments.gram.double())
    assert values.min() > -1e-6 * values.max()


def test_later_products_are_in_float32_again() -> None:
    rows = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    before = rows @ rows
    with pytest.raises(RuntimeError, match="stop"), bfloat16_products():
        raise RuntimeError("stop")
    assert torch.equal(rows @ rows, before)
