"""Usual mistakes of norms, projections, the MLP's activation function and residual sums; and the diagnosis of a tap.

A cause is named only where it explains the numbers: with the mistake made in the source's computation too, the error
falls to what rounding allows. Otherwise the report only states the error.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....models.activations import ACTIVATIONS
from ....models.family import FAMILIES
from ....models.layers import HeadNorm, RMSNorm
from ..taps import HIDDEN, MIDDLE, OUT, Kind
from .attention import attention_hypotheses
from .carried import carried_hypotheses
from .mismatch import (
    OPERATORS,
    Cause,
    Hypothesis,
    Mismatch,
    first_cause,
    permuted_heads,
    split_heads,
    unexplained,
)
from .mixture import mixture_hypotheses
from .rope import last_correct_position

EPSILONS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-12, 0.0)
ACTIVATION_TITLES = {
    "silu": "SiLU",
    "gelu": "GELU",
    "gelu_pytorch_tanh": "GELU with tanh",
    "relu": "ReLU",
    "sigmoid": "a sigmoid",
}
TAP_NAMES = {
    HIDDEN: "the layer's input",
    MIDDLE: "the residual sum after attention",
    OUT: "the layer's output",
    "self_attn": "the attention operator's output",
    "mlp": "the activation function of gate, times up",
}


def diagnose(mismatch: Mismatch) -> Cause:
    """Return the first cause that explains a mismatch, or a general description of it."""
    hypotheses: dict[Kind, Callable[[Mismatch], Iterable[Hypothesis]]] = {
        "norm": norm_hypotheses,
        "projection": projection_hypotheses,
        "activation": activation_hypotheses,
        "mixture": mixture_hypotheses,
        "residual": residual_hypotheses,
        "attention": attention_hypotheses,
    }
    kind, mask = mismatch.tap.kind, mismatch.layer_run.scenario.unpadded
    expected, actual = mismatch.expected, mismatch.actual
    cause = first_cause(hypotheses[kind](mismatch), expected, actual, mismatch.budget, mask)
    if cause is not None:
        return cause
    unpadded = actual[mask] if actual.shape[: mask.dim()] == mask.shape else actual
    cause = unexplained(OPERATORS[kind], expected[mask], unpadded, mismatch.error, mismatch.budget)
    last = last_correct_position(mismatch) if kind == "attention" and not cause.rounding else None
    return cause if last is None else replace(cause, text=f"{cause.text}; it is correct up to position {last}")


def norm_hypotheses(mismatch: Mismatch) -> Iterator[Hypothesis]:
    """Yield mistakes of an RMSNorm over the hidden state or over each head."""
    norm, x = mismatch.module, mismatch.activation(mismatch.tap.inputs[0])
    assert isinstance(norm, RMSNorm)
    folded = mismatch.folded.of(mismatch.tap.key)
    weight = norm.weight.detach()
    rows = split_heads(x, weight.shape[0]) if isinstance(norm, HeadNorm) else x

    def normalize(eps: float = norm.eps, scale: Tensor = weight, given: Tensor = rows) -> Tensor:
        normed = given * torch.rsqrt(given.square().mean(-1, keepdim=True) + eps) * scale
        return normed.reshape(mismatch.expected.shape) * folded

    yield "the norm is skipped: its output equals its input", x * folded
    for eps in (*EPSILONS, _fitted_epsilon(mismatch, rows, weight)):
        if eps is not None and eps != norm.eps and eps >= 0:
            text = f"its epsilon is {eps:.3g}, config.json's rms_norm_eps is {norm.eps:g}"
            yield Cause(text, rounding=True), normalize(eps=eps)
    yield "the norm's weight is left out", normalize(scale=torch.ones_like(weight))
    yield "the norm multiplies by 1 + weight", normalize(scale=1 + weight)
    yield "the mean is subtracted, as in LayerNorm", normalize(given=rows - rows.mean(-1, keepdim=True))
    if isinstance(norm, HeadNorm):
        whole = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.eps) * weight.repeat(norm.heads)
        yield "the norm is computed over all heads together instead of over each head", whole
    for other in range(mismatch.config.num_hidden_layers):
        if other != mismatch.layer:
            text = f"its weight is that of {mismatch.path_in_layer(other)}"
            yield text, normalize(scale=mismatch.weight_of_layer(other))
    yield from _other_inputs(mismatch, lambda value: normalize(given=value) if value.shape == rows.shape else None)


def _fitted_epsilon(mismatch: Mismatch, x: Tensor, weight: Tensor) -> float | None:
    """Return the epsilon that fits best: actual = x * weight / sqrt(mean square + epsilon) in every row."""
    unscaled = (x * weight).double()
    actual = mismatch.actual.reshape(unscaled.shape).double()
    slope = (unscaled * actual).sum(-1) / unscaled.square().sum(-1).clamp(min=1e-30)
    mean_squares = x.double().square().mean(-1)
    smallest = mean_squares.flatten().argmin()  # where epsilon has the largest effect
    if not slope.flatten()[smallest] > 0:
        return None
    return float(1 / slope.flatten()[smallest] ** 2 - mean_squares.flatten()[smallest])


def projection_hypotheses(mismatch: Mismatch) -> Iterator[Hypothesis]:
    """Yield mistakes of a matrix multiplication and its bias."""
    linear, x = mismatch.module, mismatch.activation(mismatch.tap.inputs[0])
    assert isinstance(linear, nn.Linear)
    weight, bias = linear.weight.detach(), linear.bias.detach() if linear.bias is not None else None
    column_scales, row_scales = mismatch.folded.of(mismatch.tap.inputs[0]), mismatch.folded.of(mismatch.tap.key)

    def project(matrix: Tensor, given: Tensor = x, added: Tensor | None = bias) -> Tensor:
        return F.linear(given / column_scales, matrix, added) * row_scales

    if mismatch.grid is not None:
        yield from carried_hypotheses(mismatch.grid, weight, project)
    if bias is not None:
        yield "its bias is missing or zero", project(weight, added=None)
        yield "its bias is added twice", project(weight, added=2 * bias)
        yield "its bias is subtracted", project(weight, added=-bias)
    yield "its weight is zero", project(torch.zeros_like(weight))
    for dtype, name in ((torch.float16, "float16"), (torch.bfloat16, "bfloat16")):
        yield Cause(f"its weight is rounded to {name}", rounding=True), project(weight.to(dtype).float())
    if weight.shape[0] == weight.shape[1]:
        yield "its weight is transposed", project(weight.t())
    yield "its weight is negated", project(-weight)
    if mismatch.tap.key.startswith("self_attn.") and not mismatch.tap.key.endswith("o_proj"):
        yield from permuted_heads(mismatch)
    yield from _other_inputs(mismatch, lambda value: project(weight, value) if value.shape == x.shape else None)
    if mismatch.error > 0.1:
        for other in sorted(range(mismatch.config.num_hidden_layers), key=lambda i: abs(i - mismatch.layer)):
            if other != mismatch.layer:
                text = f"its weight is that of {mismatch.path_in_layer(other)}"
                yield text, project(mismatch.weight_of_layer(other))


def activation_hypotheses(mismatch: Mismatch) -> Iterator[Hypothesis]:
    """Yield mistakes of act(gate) * up, act being config.json's hidden_act."""
    gate, up = (mismatch.activation(key) for key in mismatch.tap.inputs)
    name = mismatch.config.hidden_act
    act, expected = ACTIVATIONS[name], ACTIVATION_TITLES.get(name, name)
    yield "gate and up are swapped", act(up) * gate
    for other, title in ACTIVATION_TITLES.items():
        if ACTIVATIONS[other] is not act:
            yield f"the activation function is {title}, expected {expected}", ACTIVATIONS[other](gate) * up
    yield "the activation function is left out", gate * up
    yield "the gate is left out", up
    yield "up is left out", act(gate)


def residual_hypotheses(mismatch: Mismatch) -> Iterator[Hypothesis]:
    """Yield mistakes of the sum of the residual stream and a branch."""
    stream, branch = (mismatch.activation(key) for key in mismatch.tap.inputs)
    yield "the residual is left out", branch
    yield "the branch is left out", stream
    yield "the branch is subtracted", stream - branch
    activations = {key: mismatch.activation(key) for key in (HIDDEN, *mismatch.layer_run.activations)}
    alike = {key: value for key, value in activations.items() if value.shape == stream.shape}
    for key, value in alike.items():
        text = f"the residual is {_name(key)} instead of {_name(mismatch.tap.inputs[0])}"
        yield text, value + branch
    for key, value in alike.items():
        yield _wrong_input(mismatch, mismatch.tap.inputs[1], key), stream + value


def _other_inputs(mismatch: Mismatch, compute: Callable[[Tensor], Tensor | None]) -> Iterator[Hypothesis]:
    """Yield the same operator on the activations of other taps."""
    expected = mismatch.tap.inputs[0]
    for key in (HIDDEN, *mismatch.layer_run.activations):
        if key in (expected, mismatch.tap.key):
            continue
        hypothesis = compute(mismatch.activation(key))
        if hypothesis is not None:
            yield _wrong_input(mismatch, expected, key), hypothesis


def _wrong_input(mismatch: Mismatch, expected: str, actual: str) -> Cause:
    """Return the cause for an operator with the wrong input; around a norm after its branch, that norm is at fault."""
    family = FAMILIES[mismatch.config.family]
    for norm, branch in ((family.norm_after_attention, "attention"), (family.norm_after_mlp, "the MLP")):
        if norm is not None and norm in (expected, actual, mismatch.tap.key):
            text = f"the norm is applied before {branch} (pre-norm), {family.title} applies it after (post-norm)"
            return Cause(text, tap=norm)
    return Cause(f"its input is {_name(actual)} instead of {_name(expected)}")


def _name(key: str) -> str:
    return TAP_NAMES.get(key, f"{key}'s output")
