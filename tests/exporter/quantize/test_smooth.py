"""The search for scales to fold: it finds outlier channels, and folding the scales improves the whole model."""

from pathlib import Path

import pytest
import torch
from intaglio.exporter.quantize.formats.blocks import BlockFormat
from intaglio.exporter.quantize.layers.smoothing import smoothing
from intaglio.exporter.quantize.layers.stream import LayerStream
from intaglio.exporter.quantize.methods.rescale import Carrier, RescaledCheckpoint
from intaglio.exporter.quantize.methods.smooth import Multiply, best_scales, integer_matmul, weight_only_matmul
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.loading.parameters import load_module
from intaglio.tests import tiny
from torch import Tensor

PLAIN = Carrier(("norm",), ("weight",))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(inputs: Tensor, weight: Tensor, scales: Tensor, multiply: Multiply = integer_matmul) -> float:
    exact = inputs @ weight.t()
    return float((multiply(inputs / scales, weight * scales) - exact).norm() / exact.norm())


def test_an_outlier_channel_is_evened_out() -> None:
    inputs, weight = noise(200, 64), noise(48, 64, seed=1)
    inputs[:, 7] *= 60
    scales = best_scales(inputs, weight, PLAIN, integer_matmul)
    assert scales.argmax() == 7
    assert error(inputs, weight, scales) < 0.4 * error(inputs, weight, torch.ones(64))


def test_integer_matmul_gives_each_token_its_scale() -> None:
    inputs, weight = noise(20, 64), noise(48, 64, seed=1)
    calm = integer_matmul(inputs, weight)
    wild = inputs.clone()
    wild[3] *= 1e4
    disturbed = integer_matmul(wild, weight)
    others = torch.arange(20) != 3
    assert torch.allclose(disturbed[others], calm[others], atol=1e-5)
    assert 1e-3 < error(inputs, weight, torch.ones(64)) < 2e-2


def test_one_token_does_not_decide_for_all() -> None:
    inputs, weight = noise(200, 64), noise(48, 64, seed=1)
    inputs[:, 7] *= 60
    massive = inputs.clone()
    massive[0] = 1e4 * noise(64, seed=2)
    usual, found = (best_scales(x, weight, PLAIN, integer_matmul) for x in (inputs, massive))
    assert found.argmax() == usual.argmax() == 7


def test_columns_that_matter_get_more_of_the_codes() -> None:
    inputs, weight = noise(200, 64), noise(48, 64, seed=1)
    inputs[:, ::16] *= 30
    multiply = weight_only_matmul(BlockFormat(4, 32, True))
    scales = best_scales(inputs, weight, PLAIN, multiply)
    assert error(inputs, weight, scales, multiply) < 0.8 * error(inputs, weight, torch.ones(64), multiply)


def test_even_inputs_get_no_scales_and_dead_channels_are_supported() -> None:
    inputs, weight = torch.sign(noise(200, 64)), noise(48, 64, seed=1)
    assert torch.allclose(best_scales(inputs, weight, PLAIN, integer_matmul), torch.ones(64), atol=1e-5)
    inputs[:, 5] = 0
    assert torch.isfinite(best_scales(inputs, weight, PLAIN, integer_matmul)).all()
    assert torch.isfinite(best_scales(torch.zeros(9, 64), weight, PLAIN, integer_matmul)).all()


@pytest.mark.parametrize(("family", "folds"), [("qwen2", 16), ("exaone4", 8)])
def test_every_stage_with_a_carrier_is_smoothed(family: str, folds: int, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tiny.write(tmp_path / "model", tiny.config(family)))
    windows = torch.randint(3, 288, (6, 24), generator=torch.Generator().manual_seed(0))
    calls: list[tuple[int, int]] = []
    found = smoothing(
        checkpoint, windows, checkpoint.tensors, integer_matmul, lambda done, total: calls.append((done, total))
    )
    assert len(found) == folds
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with torch.inference_mode():
        expected, same = (
            load_module(source)(windows).logits for source in (checkpoint, RescaledCheckpoint(checkpoint, found))
        )
    assert (same - expected).abs().max() < 1e-4 * expected.abs().max()


def test_only_wanted_stages_are_smoothed(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tiny.write(tmp_path / "model", tiny.config("qwen2")))
    windows = torch.randint(3, 288, (2, 24), generator=torch.Generator().manual_seed(0))
    wanted = [f"model.layers.2.mlp.{name}_proj.weight" for name in ("gate", "up")]
    found = smoothing(checkpoint, windows, [*wanted, "model.layers.2.self_attn.q_proj.weight"], integer_matmul)
    assert [fold.carrier.multiplied for fold in found] == [tuple(wanted)]


def test_smoothing_an_outlier_in_the_norm_makes_the_layer_better(tmp_path: Path) -> None:
    """Amplify a few channels that gate and up hardly read in the norm before the MLP, as in trained models."""
    values = tiny.config("qwen2")
    tensors = tiny.weights(values)
    for name in tensors:
        if name.endswith("post_attention_layernorm.weight"):
            tensors[name][::20] *= 50
        if "gate_proj" in name or "up_proj" in name:
            tensors[name][:, ::20] /= 50
    checkpoint = Checkpoint(tiny.write(tmp_path / "model", values, tensors=tensors))
    windows = torch.randint(3, 288, (4, 24), generator=torch.Generator().manual_seed(0))
    found = smoothing(checkpoint, windows, checkpoint.tensors, integer_matmul)
    after = RescaledCheckpoint(checkpoint, found)
    errors = []
    for each in (checkpoint, after):
        stream = LayerStream(each, windows)
        layer = stream.load(0)
        stage = stream.stages(layer)[2]
        assert stage.names == ("mlp.gate_proj", "mlp.up_proj")
        inputs = torch.cat([piece.rows for piece in stream.inputs(layer, stage)])
        weight = stage.modules[0].weight
        errors.append(error(inputs, weight, torch.ones(64)))
    assert errors[1] < 0.3 * errors[0]
