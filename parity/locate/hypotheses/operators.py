"""Why a place is wrong: what a usual mistake would have given there is computed, and compared with what it gave.

A cause is named only where it explains the numbers: with the mistake made on the source's side too, the error falls to
what rounding allows. Otherwise the report says no more than that the operator differs.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.family import FAMILIES
from ...models.layers import HeadNorm, RMSNorm
from .attention_mistakes import attention_mistakes, last_right
from .places import HIDDEN, MIDDLE, OUT, Kind
from .symptoms import WHAT, Candidate, Cause, Symptom, listed, matched, plausible, scaled, split, unexplained

EPSILONS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-12, 0.0)
WORDS = {
    HIDDEN: "the layer's input",
    MIDDLE: "the sum behind attention",
    OUT: "the layer's output",
    "self_attn": "the attention operator's output",
    "mlp": "silu(gate) * up",
}


def explain(symptom: Symptom) -> Cause:
    """The first usual mistake that explains the symptom, or what can be said of it in general."""
    lists: dict[Kind, Callable[[Symptom], Iterable[Candidate]]] = {
        "norm": norm_mistakes,
        "projection": projection_mistakes,
        "activation": activation_mistakes,
        "residual": residual_mistakes,
        "attention": attention_mistakes,
    }
    mistakes: Iterable[Candidate] = lists[symptom.place.kind](symptom)
    for cause, candidate in chain(mistakes, scaled(symptom.wanted, symptom.found)):
        if candidate.shape == symptom.found.shape and plausible(symptom.off(candidate), symptom.error, symptom.budget):
            return Cause(cause) if isinstance(cause, str) else cause
    rows = symptom.step.batch.new
    wanted, found = symptom.wanted[rows], symptom.found
    found = found[rows] if found.shape[: rows.dim()] == rows.shape else found
    cause = unexplained(WHAT[symptom.place.kind], wanted, found, symptom.error, symptom.budget)
    last = last_right(symptom) if symptom.place.kind == "attention" and not cause.rounding else None
    return cause if last is None else replace(cause, words=f"{cause.words}; it is right up to position {last}")


def norm_mistakes(symptom: Symptom) -> Iterator[Candidate]:
    """RMSNorm, over the hidden state or over each head."""
    norm, x = symptom.module, symptom.value(symptom.place.takes[0])
    assert isinstance(norm, RMSNorm)
    ratio = symptom.ratios.get(symptom.place.key, torch.ones(()))
    weight = norm.weight.detach()
    rows = split(x, weight.shape[0]) if isinstance(norm, HeadNorm) else x

    def with_(eps: float = norm.eps, scale: Tensor = weight, given: Tensor = rows) -> Tensor:
        normed = given * torch.rsqrt(given.square().mean(-1, keepdim=True) + eps) * scale
        return normed.reshape(symptom.wanted.shape) * ratio

    yield "the norm is skipped: what goes in comes out", x * ratio
    for eps in (*EPSILONS, _fitted_epsilon(symptom, rows, weight)):
        if eps is not None and eps != norm.eps and eps >= 0:
            words = f"its epsilon is {eps:.3g}, config.json's rms_norm_eps is {norm.eps:g}"
            yield Cause(words, rounding=True), with_(eps=eps)
    yield "the norm's weight is left out", with_(scale=torch.ones_like(weight))
    yield "the norm multiplies by 1 + weight", with_(scale=1 + weight)
    yield "the mean is subtracted, as in LayerNorm", with_(given=rows - rows.mean(-1, keepdim=True))
    if isinstance(norm, HeadNorm):
        whole = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.eps) * weight.repeat(norm.heads)
        yield "the norm is taken over all heads together, not over each", whole
    for other in range(symptom.config.num_hidden_layers):
        if other != symptom.layer:
            yield f"its weight is that of {symptom.path(other)}", with_(scale=symptom.sibling(other))
    yield from _other_inputs(symptom, lambda value: with_(given=value) if value.shape == rows.shape else None)


def _fitted_epsilon(symptom: Symptom, x: Tensor, weight: Tensor) -> float | None:
    """The epsilon that fits best: found = x * weight / sqrt(mean square + epsilon) in every row."""
    plain = (x * weight).double()
    found = symptom.found.reshape(plain.shape).double()
    slope = (plain * found).sum(-1) / plain.square().sum(-1).clamp(min=1e-30)
    squares = x.double().square().mean(-1)
    telling = squares.flatten().argmin()
    if not slope.flatten()[telling] > 0:
        return None
    return float(1 / slope.flatten()[telling] ** 2 - squares.flatten()[telling])


def projection_mistakes(symptom: Symptom) -> Iterator[Candidate]:
    """A product with a weight, and its bias."""
    linear, x = symptom.module, symptom.value(symptom.place.takes[0])
    assert isinstance(linear, nn.Linear)
    weight, bias = linear.weight.detach(), linear.bias.detach() if linear.bias is not None else None
    ratios = symptom.ratios
    column = ratios.get(symptom.place.takes[0], torch.ones(()))
    row = ratios.get(symptom.place.key, torch.ones(()))

    def times(matrix: Tensor, given: Tensor = x, added: Tensor | None = bias) -> Tensor:
        return F.linear(given / column, matrix, added) * row

    if bias is not None:
        yield "its bias is missing or zero", times(weight, added=None)
        yield "its bias is added twice", times(weight, added=2 * bias)
        yield "its bias is subtracted", times(weight, added=-bias)
    yield "its weight is zero", times(torch.zeros_like(weight))
    for dtype, name in ((torch.float16, "float16"), (torch.bfloat16, "bfloat16")):
        yield Cause(f"its weight is rounded to {name}", rounding=True), times(weight.to(dtype).float())
    if weight.shape[0] == weight.shape[1]:
        yield "its weight is transposed", times(weight.t())
    yield "its weight is negated", times(-weight)
    dim = symptom.config.head_dim
    if symptom.place.key.startswith("self_attn.") and not symptom.place.key.endswith("o_proj"):
        order = matched(split(symptom.wanted, dim), split(symptom.found, dim))
        if order is not None:
            yield (
                f"its heads are in another order ({listed(order)})",
                split(symptom.wanted, dim)[..., order, :].flatten(-2),
            )
    yield from _other_inputs(symptom, lambda value: times(weight, value) if value.shape == x.shape else None)
    if symptom.error > 0.1:
        for other in sorted(range(symptom.config.num_hidden_layers), key=lambda i: abs(i - symptom.layer)):
            if other != symptom.layer:
                yield f"its weight is that of {symptom.path(other)}", times(symptom.sibling(other))


def activation_mistakes(symptom: Symptom) -> Iterator[Candidate]:
    """silu(gate) * up."""
    gate, up = (symptom.value(key) for key in symptom.place.takes)
    yield "gate and up are exchanged", F.silu(up) * gate
    yield "the activation is GELU, not SiLU", F.gelu(gate) * up
    yield "the activation is GELU (its tanh form), not SiLU", F.gelu(gate, approximate="tanh") * up
    yield "the activation is ReLU, not SiLU", F.relu(gate) * up
    yield "the activation is a sigmoid, not SiLU", F.sigmoid(gate) * up
    yield "the activation is left out", gate * up
    yield "the gate is left out", up
    yield "up is left out", F.silu(gate)


def residual_mistakes(symptom: Symptom) -> Iterator[Candidate]:
    """The residual stream and what a branch adds to it."""
    stream, branch = (symptom.value(key) for key in symptom.place.takes)
    yield "the residual is left out", branch
    yield "the branch is left out", stream
    yield "the branch is subtracted", stream - branch
    values = {key: symptom.value(key) for key in (HIDDEN, *symptom.step.values)}
    alike = {key: value for key, value in values.items() if value.shape == stream.shape}
    for key, value in alike.items():
        words = f"the residual is {_the(key)} in place of {_the(symptom.place.takes[0])}"
        yield words, value + branch
    for key, value in alike.items():
        yield _misplaced(symptom, symptom.place.takes[1], key), stream + value


def _other_inputs(symptom: Symptom, compute: Callable[[Tensor], Tensor | None]) -> Iterator[Candidate]:
    """The same operator on another place's numbers."""
    expected = symptom.place.takes[0]
    for key in (HIDDEN, *symptom.step.values):
        if key in (expected, symptom.place.key):
            continue
        candidate = compute(symptom.value(key))
        if candidate is not None:
            yield _misplaced(symptom, expected, key), candidate


def _misplaced(symptom: Symptom, expected: str, taken: str) -> Cause:
    """Words for an operator that takes the wrong value; of norms, where they stand."""
    family = FAMILIES[symptom.config.family]
    for norm, branch in ((family.norm_after_attention, "attention"), (family.norm_after_mlp, "the MLP")):
        if norm is not None and norm in (expected, taken, symptom.place.key):
            words = f"the norm stands before {branch} (pre-norm), {family.title} has it behind it (post-norm)"
            return Cause(words, key=norm)
    return Cause(f"takes {_the(taken)} in place of {_the(expected)}")


def _the(key: str) -> str:
    return WORDS.get(key, f"{key}'s output")
