"""Mistakes in norms, projections, the MLP and residuals are named, and what no mistake explains is described."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from intaglio.models.family import FAMILIES
from intaglio.parity.locate.hypotheses.mismatch import explains, find_permutation
from intaglio.parity.locate.taps import taps_of
from torch import Tensor, nn

from .source_layer import BUDGET, SIZE, source_layer


@pytest.mark.parametrize("key", ["self_attn.q_norm", "post_attention_layernorm"])
@pytest.mark.parametrize("eps", [1e-3, 1e-6, 3.7e-4])
def test_epsilons(tmp_path: Path, key: str, eps: float) -> None:
    layer = source_layer(tmp_path, "exaone4", index=2)

    def change(layer: nn.Module) -> None:
        layer.get_submodule(key).eps = eps  # type: ignore[assignment]

    if eps < 1e-5:  # shows only where the numbers are small
        layer.weight("self_attn.q_proj").mul_(0.01)
        layer.weight("self_attn.o_proj").mul_(0.01)
        layer = replace(layer, layer_run=layer.run_with())
    cause = layer.diagnose(key, layer.run_with(change=change).activations[key])
    assert cause.text == f"its epsilon is {eps:g}, config.json's rms_norm_eps is 1e-05"
    assert cause.rounding


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x, w: x, "the norm is skipped: its output equals its input"),
        (lambda x, w: _normed(x), "the norm's weight is left out"),
        (lambda x, w: _normed(x) * (1 + w), "the norm multiplies by 1 + weight"),
        (lambda x, w: _normed(x - x.mean(-1, keepdim=True)) * w, "the mean is subtracted, as in LayerNorm"),
        (lambda x, w: torch.zeros_like(x), "its output is all zeros"),
        (lambda x, w: -_normed(x) * w, "its sign is flipped"),
        (lambda x, w: 1.5 * _normed(x) * w, "its output is 1.5 times the expected one"),
    ],
)
def test_norms(tmp_path: Path, change: Callable[[Tensor, Tensor], Tensor], text: str) -> None:
    layer = source_layer(tmp_path, "qwen2")
    weight = layer.weight("input_layernorm")
    assert layer.cause("input_layernorm", change(layer.hidden, weight)) == text


def _normed(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def test_a_norm_over_all_heads(tmp_path: Path) -> None:
    layer = source_layer(tmp_path, "exaone4")
    x, weight = layer.activations["self_attn.q_proj"], layer.weight("self_attn.q_norm")
    actual = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight.repeat(4)
    text = "the norm is computed over all heads together instead of over each head"
    assert layer.cause("self_attn.q_norm", actual) == text


def test_the_weight_of_another_layer(tmp_path: Path) -> None:
    layer = source_layer(tmp_path, "qwen2", index=1)
    other = layer.source.layer(3)
    for key in ("post_attention_layernorm", "mlp.up_proj"):
        key_of_input = next(tap.inputs[0] for tap in taps_of(FAMILIES["qwen2"]) if tap.key == key)
        actual = other.get_submodule(key)(layer.activations[key_of_input])
        assert layer.cause(key, actual) == f"its weight is that of model.layers.3.{key}"


@pytest.mark.parametrize(
    ("key", "change", "text"),
    [
        ("self_attn.q_proj", lambda x, w, b: x @ w.t(), "its bias is missing or zero"),
        ("self_attn.v_proj", lambda x, w, b: x @ w.t() - b, "its bias is subtracted"),
        ("self_attn.o_proj", lambda x, w, b: x @ w, "its weight is transposed"),
        ("mlp.gate_proj", lambda x, w, b: x @ w.t() * 0, "its weight is zero"),
        ("mlp.down_proj", lambda x, w, b: x @ -w.t(), "its weight is negated"),
        (
            "self_attn.q_proj",
            lambda x, w, b: (x @ w.t() + b).view(1, SIZE, 4, 16)[:, :, [1, 0, 3, 2]].flatten(2),
            "its heads are in a different order (1, 0, 3, 2)",
        ),
    ],
)
def test_projections(tmp_path: Path, key: str, change: Callable[..., Tensor], text: str) -> None:
    layer = source_layer(tmp_path, "qwen2")
    module = layer.layer.get_submodule(key)
    assert isinstance(module, nn.Linear)
    key_of_input = next(tap.inputs[0] for tap in taps_of(FAMILIES["qwen2"]) if tap.key == key)
    assert layer.cause(key, change(layer.activations[key_of_input], module.weight, module.bias)) == text


def test_a_rounded_weight_is_rounding(tmp_path: Path) -> None:
    layer = source_layer(tmp_path, "qwen2")
    weight = layer.weight("mlp.down_proj")
    cause = layer.diagnose("mlp.down_proj", layer.activations["mlp"] @ weight.half().float().t())
    assert (cause.text, cause.rounding) == ("its weight is rounded to float16", True)


def test_a_projection_of_something_else(tmp_path: Path) -> None:
    layer = source_layer(tmp_path, "qwen2")
    actual = layer.layer.get_submodule("mlp.gate_proj")(layer.activations["input_layernorm"])
    text = "its input is input_layernorm's output instead of post_attention_layernorm's output"
    assert layer.cause("mlp.gate_proj", actual) == text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda g, u: nn.functional.gelu(g) * u, "the activation function is GELU, expected SiLU"),
        (lambda g, u: nn.functional.silu(u) * g, "gate and up are swapped"),
        (lambda g, u: g * u, "the activation function is left out"),
        (lambda g, u: u, "the gate is left out"),
    ],
)
def test_activations(tmp_path: Path, change: Callable[[Tensor, Tensor], Tensor], text: str) -> None:
    layer = source_layer(tmp_path, "exaone4")
    actual = change(layer.activations["mlp.gate_proj"], layer.activations["mlp.up_proj"])
    assert layer.cause("mlp", actual) == text


def test_residuals(tmp_path: Path) -> None:
    layer = source_layer(tmp_path, "qwen2")
    branch = layer.activations["mlp.down_proj"]
    assert layer.cause("out", branch) == "the residual is left out"
    assert layer.cause("out", layer.activations["middle"]) == "the branch is left out"
    text = "the residual is the layer's input instead of the residual sum after attention"
    assert layer.cause("out", layer.hidden + branch) == text


def test_where_nothing_explains_it(tmp_path: Path) -> None:
    layer = source_layer(tmp_path, "qwen2")
    expected = layer.activations["self_attn"]
    noise = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3))
    noise *= expected.norm() / noise.norm()
    cause = layer.diagnose("self_attn", expected + 0.1 * noise)
    assert cause.text == "the attention operator has a relative error of 0.1: no known mistake explains it"
    assert cause.general
    assert not cause.rounding
    cause = layer.diagnose("self_attn", expected + 2 * BUDGET * noise)
    assert cause.text == "the attention operator has a relative error of 4e-05: more than rounding explains"
    assert cause.rounding
    late = expected.clone()
    late[:, 17:] += noise[:, 17:]
    assert layer.cause("self_attn", late).endswith("it is correct up to position 16")
    assert layer.cause("self_attn", expected[:, 1:]).startswith("its output has shape (1, 23, 64), expected")
    cause = layer.diagnose("mlp.up_proj", torch.full_like(layer.activations["mlp.up_proj"], torch.inf))
    assert cause.text.startswith("its output has NaN or infinite values, and the source's largest magnitude is ")


def test_when_a_hypothesis_explains_an_error() -> None:
    assert explains(1e-6, error=0.5, budget=BUDGET)
    assert not explains(1e-3, error=0.5, budget=BUDGET)  # better, but still wrong
    assert not explains(3e-5, error=5e-5, budget=BUDGET)  # not better


def test_find_permutation() -> None:
    parts = torch.randn(5, 3, 4)
    assert find_permutation(parts, parts[:, [2, 0, 1]]) == [2, 0, 1]
    assert find_permutation(parts, parts) is None
    assert find_permutation(parts, parts[:, [0, 0, 1]]) is None
