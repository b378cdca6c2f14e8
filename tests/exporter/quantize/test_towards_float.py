"""Weights that aim at the float model's outputs: the least squares by hand, and whole decoders against plain GPTQ."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from intaglio.exporter.quantize.formats.blocks import BlockFormat, QuantizedRows
from intaglio.exporter.quantize.formats.scheme import Scheme
from intaglio.exporter.quantize.layers.gptq_pass import solve_gptq
from intaglio.exporter.quantize.layers.hessian import DAMPING, MOST, Fit, Moments, target
from intaglio.exporter.quantize.layers.sensitivity import measure_sensitivity
from intaglio.exporter.quantize.layers.stream import Inputs, LayerStream
from intaglio.exporter.quantize.methods.rtn import round_to_nearest
from intaglio.models.checkpoint import Checkpoint
from safetensors.torch import load_file
from torch import Tensor, nn

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pairs(quantized: Tensor, original: Tensor, *residuals: Tensor) -> Iterator[tuple[Inputs, Inputs]]:
    """Yield the inputs in two parts."""
    for part in (slice(None, 100), slice(100, None)):
        ours, theirs = (residual[part] for residual in residuals) if residuals else (None, None)
        yield Inputs(quantized[part], ours), Inputs(original[part], theirs)


@pytest.mark.parametrize("width", [5, 64, 97])
def test_moments(width: int) -> None:
    rows, drift = normal(50, width, seed=0), normal(50, 3, seed=1)
    moments = Moments(width, 3)
    moments.add(rows[:20], drift[:20])
    moments.add(rows[20:], drift[20:])
    moments.complete()
    gram = rows.t() @ rows
    assert torch.allclose(moments.gram, gram, atol=1e-4)
    assert torch.allclose(moments.cross, drift.t() @ rows, atol=1e-4)
    damped = gram + DAMPING * gram.diagonal().diag()
    expected = torch.linalg.solve(damped.double(), (rows.t() @ drift).double()).t()
    assert torch.allclose(moments.correction().double(), expected, rtol=1e-3, atol=1e-4)


def test_noise_is_not_fitted() -> None:
    """A drift that the inputs do not tell would be fitted by a tenth of its size; on held-out tokens that is worse."""
    rows, weight = normal(400, 96, seed=0), normal(8, 96, seed=1)
    aim = target(pairs(rows, rows + 0.3 * normal(400, 96, seed=2)), (weight,))
    assert (aim.weight(weight) - weight).square().mean() < 1e-4 * weight.square().mean()


def test_the_weights_stay_where_both_models_agree() -> None:
    rows, weight = normal(200, 24, seed=0), normal(8, 24, seed=1)
    for weights in ((weight,), (weight, weight[:3])):
        assert torch.equal(target(pairs(rows, rows), weights).weight(weight), weight)
    residual = normal(200, 8, seed=2)
    aim = target(pairs(rows, rows, residual, residual), (weight,))
    assert torch.equal(aim.weight(weight), weight)


@pytest.mark.parametrize("count", [1, 3])
def test_a_linear_error_of_the_inputs_is_undone(count: int) -> None:
    original, weights = normal(400, 24, seed=0), tuple(normal(8, 24, seed=i + 1) for i in range(count))
    quantized = original @ (torch.eye(24) + 0.1 * normal(24, 24, seed=5))
    aim = target(pairs(quantized, original), weights)
    for weight in weights:
        before, after = (
            (quantized @ w.t() - original @ weight.t()).square().mean() for w in (weight, aim.weight(weight))
        )
        assert after < 0.25 * before  # the rest is damped


@pytest.mark.parametrize("count", [1, 3])
def test_a_correction_is_a_part_of_the_weight(count: int) -> None:
    """What would take four times the weight is corrected as far as the limit goes, in the same direction."""
    rows, weights = normal(400, 24, seed=0), tuple(normal(8, 24, seed=i + 1) for i in range(count))
    aim = target(pairs(rows, 5 * rows), weights)
    for weight in weights:
        change = aim.weight(weight) - weight
        assert change.norm().item() == pytest.approx(MOST * weight.norm().item(), rel=1e-4)
        assert torch.nn.functional.cosine_similarity(change.flatten(), weight.flatten(), dim=0) > 0.99


def test_the_residual_stream_is_corrected() -> None:
    rows, weight = normal(400, 24, seed=0), normal(8, 24, seed=1)
    residual = normal(400, 8, seed=2)
    error = 0.2 * rows @ normal(24, 8, seed=3)
    aim = target(pairs(rows, rows, residual + error, residual), (weight,))
    assert (rows @ (aim.weight(weight) - weight).t() + error).square().mean() < 0.25 * error.square().mean()


def test_huge_tokens_do_not_rule() -> None:
    """A token of a thousandfold size, whose error contradicts the others', is left as it is."""
    rows, weight, residual = normal(400, 24, seed=0), normal(8, 24, seed=1), normal(400, 8, seed=2)
    rows[0] *= 1000
    residual[0] *= 1000
    error = 0.2 * rows @ normal(24, 8, seed=3)
    error[0] *= -1
    aim = target(pairs(rows, rows, residual + error, residual), (weight,))
    left = rows @ (aim.weight(weight) - weight).t() + error
    assert left[1:].square().mean() < 0.25 * error[1:].square().mean()


def test_a_norm_behind_the_weight() -> None:
    """What is added is g y / rms(y): the weight's change reaches the residual stream through it."""
    rows, weight, residual = normal(2000, 24, seed=0), normal(16, 24, seed=1), normal(2000, 16, seed=2)
    norm = torch.linspace(0.5, 2, 16)
    norm[3] = 0.01
    error = 0.02 * rows @ normal(24, 16, seed=3)

    def added(w: Tensor) -> Tensor:
        output = rows @ w.t()
        return norm * output / output.square().mean(-1, keepdim=True).sqrt()

    aim = target(pairs(rows, rows, residual + error, residual), (weight,), norm)
    moved = aim.weight(weight)
    left = added(moved) - added(weight) + error
    others = torch.arange(16) != 3
    assert left[:, others].square().mean() < 0.5 * error[:, others].square().mean()
    assert torch.equal(moved[3], weight[3])


@pytest.mark.parametrize("name", ["tiny-qwen2", "tiny-exaone4"])
def test_a_decoder_ends_nearer_to_the_float_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last hidden states, on text that was not calibrated on, beside GPTQ that keeps the errors before it."""
    checkpoint = Checkpoint(CHECKPOINTS / name)
    windows = torch.randint(3, checkpoint.config.vocab_size, (40, 96), generator=torch.Generator().manual_seed(0))
    prefix = f"{checkpoint.trunk_prefix}layers."
    schemes = {
        tensor: Scheme(BlockFormat(4, 32, False), "gptq")
        for tensor, info in checkpoint.tensors.items()
        if tensor.startswith(prefix) and len(info.shape) == 2
    }
    embedding = f"{checkpoint.trunk_prefix}embed_tokens.weight"
    schemes[embedding] = Scheme(BlockFormat(4, 32, True), "gptq")
    sensitivity = measure_sensitivity(checkpoint, "text-generation", windows[:4], {}, lambda done, total: None)
    errors = []
    for corrects in (False, True):
        if not corrects:
            monkeypatch.setattr(Fit, "_share", lambda *_: 0.0)
        folder = tmp_path / str(corrects)
        solve_gptq(checkpoint, schemes, windows[:32], sensitivity, folder, lambda done, total: None)
        errors.append(_error(checkpoint, folder, windows[32:]))
        monkeypatch.undo()
    assert errors[1] < 0.985 * errors[0]


def _error(checkpoint: Checkpoint, folder: Path, windows: Tensor) -> float:
    """Return the mean squared error of the last normed hidden states of the solved model."""
    native, solved = checkpoint.load(), checkpoint.load()
    state = solved.state_dict()
    for file in folder.glob("*.weight.safetensors"):
        found = load_file(file)
        format = BlockFormat(4, 32, symmetric="embed_tokens" in file.name)
        rows = QuantizedRows(format, found["codes"], found["scales"], found["zero_points"])
        state[file.name.removesuffix(".safetensors")].copy_(rows.dequantize())
    with torch.inference_mode():
        ends = [model(windows, output_hidden_states=True).hidden_states[-1] for model in (native, solved)]
    return float((ends[0] - ends[1]).square().mean())


def test_what_is_rounded_is_not_corrected(tmp_path: Path) -> None:
    """It is rounded from the checkpoint when it is stored, and the layers after it must have read the same."""
    checkpoint = Checkpoint(CHECKPOINTS / "tiny-qwen2")
    windows = torch.randint(3, 288, (8, 64), generator=torch.Generator().manual_seed(0))
    names = [f"{checkpoint.trunk_prefix}layers.1.{part}.weight" for part in ("self_attn.o_proj", "mlp.down_proj")]
    first = f"{checkpoint.trunk_prefix}layers.0.mlp.down_proj.weight"
    format, coarse = BlockFormat(8, 32, True), BlockFormat(4, 64, True)
    schemes = {
        first: Scheme(coarse, "gptq"),
        names[0]: Scheme(format, "rtn"),
        names[1]: Scheme(format, "gptq"),
    }
    solve_gptq(checkpoint, schemes, windows, None, tmp_path, lambda done, total: None)
    rounded, solved = (load_file(tmp_path / f"{name}.safetensors")["codes"] for name in names)
    expected = [round_to_nearest(checkpoint.tensor(name).float(), format).codes for name in names]
    assert torch.equal(rounded, expected[0])
    assert not torch.equal(solved, expected[1])


def test_the_float_stream_is_that_of_the_float_model(tmp_path: Path) -> None:
    """Its layers are not those that are quantized, though they share tensors at first."""
    checkpoint = Checkpoint(CHECKPOINTS / "tiny-qwen2")
    windows = torch.randint(3, 288, (5, 12), generator=torch.Generator().manual_seed(0))
    stream = LayerStream(checkpoint, windows)
    original = stream.copy()
    layer = stream.load(0)
    twin = original.twin(layer, 0)
    expected = stream.copy()
    expected.advance(twin)
    for stage, same in zip(stream.stages(layer), original.stages(twin), strict=True):
        last = stage.names == ("mlp.down_proj",)
        for ours, theirs in zip(stream.inputs(layer, stage), original.inputs(twin, same, advance=last), strict=True):
            assert ours.rows.shape == theirs.rows.shape
        for module in stage.modules:
            module.weight = nn.Parameter(torch.zeros_like(module.weight), requires_grad=False)
    assert torch.equal(original.hidden, expected.hidden)
    stream.advance(layer)
    assert not torch.allclose(stream.hidden, original.hidden)
