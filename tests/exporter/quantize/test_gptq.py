"""GPTQ against rounding to the nearest, and where the two must agree; the streamed layers against the whole model."""

from pathlib import Path

import pytest
import torch
from intaglio.exporter.quantize.formats.blocks import BlockFormat
from intaglio.exporter.quantize.layers import products
from intaglio.exporter.quantize.layers.stream import LayerStream
from intaglio.exporter.quantize.methods.gptq import Hessian, gptq
from intaglio.exporter.quantize.methods.rtn import round_to_nearest
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests import tiny
from torch import Tensor, nn

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
FORMATS = [
    BlockFormat(bits, size, symmetric) for bits, size, symmetric in ((4, 32, True), (4, 16, False), (8, 64, False))
]


def correlated(count: int, width: int, seed: int = 0) -> Tensor:
    """Return inputs of low rank plus noise, like those of a language model."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width // 4, width, generator=generator)
    common = torch.randn(count, width // 4, generator=generator) @ mixing
    return common + 0.3 * torch.randn(count, width, generator=generator)


@pytest.mark.parametrize("format", FORMATS, ids=str)
@pytest.mark.parametrize("columns", [64, 100])
def test_the_output_error_is_less_than_that_of_rounding(format: BlockFormat, columns: int) -> None:
    weight = torch.randn(24, columns, generator=torch.Generator().manual_seed(1))
    inputs = correlated(400, columns)
    hessian = Hessian.of(inputs.t() @ inputs / len(inputs), len(inputs))
    solved = gptq(weight, format, hessian)
    assert solved.codes.shape == (24, columns)
    assert int(solved.codes.max()) <= format.top
    fresh = correlated(400, columns, seed=0) + 0.1 * correlated(400, columns, seed=5)
    error, rounding = solved.dequantize() - weight, round_to_nearest(weight, format).dequantize() - weight
    assert (fresh @ error.t()).square().mean() < 0.6 * (fresh @ rounding.t()).square().mean()
    again = gptq(weight, format, Hessian.of(inputs.t() @ inputs / len(inputs), len(inputs)))
    assert torch.equal(again.codes, solved.codes)
    assert torch.equal(again.scales, solved.scales)


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_inputs_without_correlation_leave_nothing_to_compensate(format: BlockFormat) -> None:
    weight = torch.randn(8, 96, generator=torch.Generator().manual_seed(2))
    importance = torch.rand(96, generator=torch.Generator().manual_seed(3)) + 0.1
    solved = gptq(weight, format, Hessian.of(importance.diag(), 400))
    assert torch.equal(solved.codes, round_to_nearest(weight, format, damped(importance)).codes)


def damped(importance: Tensor) -> Tensor:
    return Hessian.of(importance.diag(), 400).diagonal


def test_few_tokens_do_not_make_it_worse_than_rounding_on_others() -> None:
    weight, format = torch.randn(32, 256, generator=torch.Generator().manual_seed(1)), BlockFormat(4, 32, False)
    rounding = round_to_nearest(weight, format).dequantize() - weight
    inputs = correlated(1200, 256)
    fresh = inputs[1000:]
    errors = []
    for tokens in (32, 128, 1000):
        few = inputs[:tokens]
        error = gptq(weight, format, Hessian.of(few.t() @ few / tokens, tokens)).dequantize() - weight
        errors.append(((fresh @ error.t()).square().mean() / (fresh @ rounding.t()).square().mean()).item())
    assert 1 > errors[0] > errors[1] > errors[2]


def test_the_output_error_is_that_of_the_inputs() -> None:
    inputs = correlated(100, 64)
    error = torch.randn(8, 64, generator=torch.Generator().manual_seed(4))
    hessian = Hessian.of(inputs.t() @ inputs / len(inputs), len(inputs))
    assert hessian.output_error(error) == pytest.approx((inputs @ error.t()).square().sum(-1).mean().item(), rel=1e-4)


def test_columns_whose_inputs_are_zero() -> None:
    inputs = correlated(200, 64)
    inputs[:, 10:20] = 0
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    solved = gptq(weight, BlockFormat(4, 32, False), Hessian.of(inputs.t() @ inputs / len(inputs), len(inputs)))
    assert solved.dequantize().isfinite().all()
    nothing = gptq(weight, BlockFormat(4, 32, False), Hessian.of(torch.zeros(64, 64), 200))
    assert (nothing.dequantize() - weight).abs().max() <= nothing.scales.abs().max()


@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
def test_the_layer_stream_matches_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    monkeypatch.setattr(products, "multiplies_bf16", lambda: False)
    folder = tiny.write(tmp_path, tiny.config(family))
    checkpoint = Checkpoint(folder)
    windows = torch.randint(0, 288, (5, 12), generator=torch.Generator().manual_seed(0))
    native = checkpoint.load()
    with torch.inference_mode():
        states = native(windows, output_hidden_states=True).hidden_states
    stream = LayerStream(checkpoint, windows)
    assert torch.equal(stream.hidden, states[0])
    for index in range(3):  # the native module returns the last layer's output after the final norm
        layer = stream.load(index)
        stages = stream.stages(layer)
        assert [stage.names for stage in stages] == [
            ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            ("self_attn.o_proj",),
            ("mlp.gate_proj", "mlp.up_proj"),
            ("mlp.down_proj",),
        ]
        for stage in stages:
            taken = torch.cat([piece.rows for piece in stream.inputs(layer, stage)])
            expected = _inputs_of(native, f"model.layers.{index}.{stage.names[0]}", windows)
            assert torch.allclose(taken, expected, atol=1e-5)
        stream.advance(layer)
        assert torch.allclose(stream.hidden, states[index + 1], atol=1e-5)


def _inputs_of(native: nn.Module, name: str, windows: Tensor) -> Tensor:
    seen: list[Tensor] = []
    hook = native.get_submodule(name).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(0, -2)))
    with torch.inference_mode():
        native(windows)
    hook.remove()
    return seen[0]
