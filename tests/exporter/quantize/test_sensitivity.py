"""The KL estimate of each weight against the divergence that is measured when it alone is quantized."""

import pytest
import torch
from intaglio.exporter.quantize.allocation.candidates import candidates
from intaglio.exporter.quantize.formats.blocks import BlockFormat
from intaglio.exporter.quantize.layers.sensitivity import measure_sensitivity
from intaglio.exporter.quantize.methods.rtn import round_to_nearest
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests.test_tiny_checkpoints import CHECKPOINTS
from torch import Tensor

FORMAT = BlockFormat(4, 32, True)


@pytest.mark.parametrize("name", ["tiny-qwen2", "tiny-exaone4"])
def test_estimates_match_measured_divergences(name: str) -> None:
    checkpoint = Checkpoint(CHECKPOINTS / name)
    native = checkpoint.load()
    windows = torch.randint(0, checkpoint.config.vocab_size, (8, 64), generator=torch.Generator().manual_seed(0))
    found = candidates(checkpoint, "text-generation")
    with torch.no_grad():
        estimated = measure_sensitivity(
            checkpoint, "text-generation", windows, {c.tensor: [FORMAT] for c in found}, lambda done, total: None
        ).kl_estimates
        before = native(windows).logits.log_softmax(-1)
        measured: dict[str, float] = {}
        for candidate in found:
            weight = native.get_parameter(f"{candidate.paths[0]}.weight")
            kept = weight.clone()
            weight.copy_(round_to_nearest(weight, FORMAT).dequantize())
            after = native(windows).logits.log_softmax(-1)
            measured[candidate.tensor] = (before.exp() * (before - after)).sum(-1).mean().item()
            weight.copy_(kept)
    assert set(estimated) == set(measured)
    guesses = torch.tensor([estimated[tensor][FORMAT] for tensor in measured])
    truths = torch.tensor(list(measured.values()))
    assert rank_correlation(guesses, truths) > 0.9
    assert 0.5 < (guesses.sum() / truths.sum()).item() < 2


def rank_correlation(left: Tensor, right: Tensor) -> float:
    """Return Spearman's rank correlation."""
    ranks = torch.stack([left.argsort().argsort(), right.argsort().argsort()]).float()
    return torch.corrcoef(ranks)[0, 1].item()
