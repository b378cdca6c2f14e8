"""The estimated KL divergence that the rounding error of each weight causes, before anything is quantized.

For a causal LM it is the Kullback-Leibler divergence of the next token, in nats per token. To second order that is half
the Fisher information's quadratic form of the outputs' error (Amari, 1998): with g the gradient of the log probability
of a token sampled from the model itself, half the mean of (g . D x)^2 over tokens, D the weight's error and x its
input. The elements of D are rounded independently, so that the sum of D^2 E[g^2 x^2] is what to expect of it: one
product serves all formats, with less noise than the errors at hand. One forward and one backward pass give it for every
weight and format; measuring would take one pass for each.
For other heads g is the gradient of a random projection of the final hidden state: the estimates then rank the
weights, and are not divergences.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....artifact import Task
from ....models.weight_source import WeightSource
from ..fixed_order import total
from ..formats.blocks import BlockFormat
from ..methods.rtn import round_to_nearest
from .products import bfloat16_products
from .stream import LayerStream

Formats = Mapping[str, Sequence[BlockFormat]]
KlEstimates = dict[str, dict[BlockFormat, float]]
"""Nats per token, by tensor of the checkpoint and format."""


@dataclass(frozen=True)
class Sensitivity:
    """The measurements of one forward and one backward pass.

    ``kl_estimates`` are in nats per token. ``embedding`` [D, D] is the mean of g g^T after the embedding: the Hessian
    of an embedding row's error, on the scale on which ``head`` [D, D], the mean of x x^T over the inputs of the LM
    head, is that of an LM head row's. Both are of so many ``tokens``.
    """

    kl_estimates: KlEstimates
    embedding: Tensor
    head: Tensor
    tokens: int


HEAD_TOKENS = 512
"""Positions whose logits are in memory at once."""

SAMPLED = 64
"""Positions for which a token is drawn at once."""

ROWS = 1024
"""Rows of a weight that are rounded at once."""

DIGITS = 5
"""Significant digits of an estimate: a product with few rows, of an expert, depends on the number of threads after."""

WINDOWS = 4
SEED = 20


@bfloat16_products()
def measure_sensitivity(
    checkpoint: WeightSource,
    task: Task,
    windows: Tensor,
    formats: Formats,
    progress: Callable[[int, int], None],
) -> Sensitivity:
    """Estimate the KL divergence of rounding each of some weights to the nearest in each of its formats.

    Args:
        windows: int64 [W, S]; a few suffice.
        formats: by tensor of the checkpoint: projections, the embedding, the LM head.
        progress: called with (layers done, layers in all); each layer counts twice, forward and backward.
    """
    generator = torch.Generator().manual_seed(SEED)
    stream = LayerStream(checkpoint, windows)
    depth = checkpoint.config.num_hidden_layers
    before: list[Tensor] = []
    for index in range(depth):
        before.append(stream.hidden.clone())
        stream.advance(stream.load(index))
        progress(index + 1, 2 * depth)
    estimates: KlEstimates = {}
    normed = torch.cat(list(stream.normed()))
    gradient = _gradient_of_head(checkpoint, task, stream.hidden, formats, generator, estimates)
    for index in reversed(range(depth)):
        gradient = _through_layer(stream, index, before.pop(), gradient, formats, estimates)
        progress(2 * depth - index, 2 * depth)
    name = f"{checkpoint.trunk_prefix}embed_tokens.weight"
    embedding = _of_embedding(checkpoint, name, windows, gradient, formats.get(name, ()))
    # A tied embedding is the LM head too: both uses add up.
    estimates[name] = {format: kl + estimates.get(name, {}).get(format, 0.0) for format, kl in embedding.items()}
    at_embedding, at_head = (rows.t() @ rows / len(rows) for rows in (gradient.flatten(0, 1), normed))
    rounded = {
        tensor: {format: float(f"{kl:.{DIGITS}g}") for format, kl in own.items()} for tensor, own in estimates.items()
    }
    return Sensitivity(rounded, at_embedding, at_head, windows.numel())


def _through_layer(
    stream: LayerStream,
    index: int,
    hidden: Tensor,
    gradient: Tensor,
    formats: Formats,
    estimates: KlEstimates,
) -> Tensor:
    """Add the estimates of a layer's projections; return the gradient at the layer's input."""
    layer = stream.load(index)
    linears = {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
    inputs: dict[str, list[Tensor]] = {name: [] for name in linears}
    gradients: dict[str, list[Tensor]] = {name: [] for name in linears}
    outputs: dict[str, Tensor] = {}  # of one window; an expert that no token of it chose has none

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            inputs[name].append(arguments[0].detach().flatten(0, -2))
            outputs[name] = output
            output.retain_grad()

        return note

    hooks = [module.register_forward_hook(watch(name)) for name, module in linears.items()]
    back = torch.empty_like(hidden)
    for row in range(len(hidden)):
        leaf = hidden[row : row + 1].requires_grad_()
        with torch.enable_grad():
            output, _ = layer(leaf, None, stream.plan(leaf))
        torch.autograd.backward(output, gradient[row : row + 1])
        assert leaf.grad is not None
        back[row] = leaf.grad[0]
        for name, rows in outputs.items():
            assert rows.grad is not None
            gradients[name].append(rows.grad.flatten(0, -2))
        outputs.clear()  # frees autograd's graph
    for hook in hooks:
        hook.remove()
    prefix = f"{stream.checkpoint.trunk_prefix}layers.{index}."
    for name, module in linears.items():
        wanted = formats.get(tensor := f"{prefix}{name}.weight", ())
        if not inputs[name]:
            estimates[tensor] = dict.fromkeys(wanted, 0.0)
            continue
        taken, gradient_rows = torch.cat(inputs.pop(name)), torch.cat(gradients.pop(name))
        # An expert counts as often as it is read.
        share = len(taken) / (hidden.shape[0] * hidden.shape[1])
        found = _kl_estimates(module.weight, wanted, taken, gradient_rows)
        estimates[tensor] = {format: share * kl for format, kl in found.items()}
    return back


def _kl_estimates(
    weight: Tensor, formats: Sequence[BlockFormat], inputs: Tensor, gradient: Tensor
) -> dict[BlockFormat, float]:
    """Return the expected half of (g . D x)^2 for the error D of each format; inputs are [T, K], gradients [T, N]."""
    inputs, sums = inputs.square(), dict.fromkeys(formats, 0.0)
    for rows, part in zip(torch.split(weight, ROWS), torch.split(gradient, ROWS, 1), strict=True):
        _add(sums, rows, part.square().t() @ inputs)
    return {format: value / len(inputs) / 2 for format, value in sums.items()}


def _add(sums: dict[BlockFormat, float], rows: Tensor, squares: Tensor) -> None:
    """Add the sum of D^2 times ``squares`` [N, K] for the error D of rows in each format."""
    for format in sums:
        error = round_to_nearest(rows, format).dequantize() - rows
        sums[format] += total(error.square_().mul_(squares))


def _gradient_of_head(
    checkpoint: WeightSource,
    task: Task,
    hidden: Tensor,
    formats: Formats,
    generator: torch.Generator,
    estimates: KlEstimates,
) -> Tensor:
    """Return the gradient at the last layer's output [W, S, D]; for a causal LM, add the estimates of its LM head."""
    leaf = hidden.clone().requires_grad_()
    scale = checkpoint.tensor(f"{checkpoint.trunk_prefix}norm.weight").float()
    with torch.enable_grad():
        normed = F.rms_norm(leaf, (leaf.shape[-1],), scale, checkpoint.config.rms_norm_eps)
    if task == "text-generation":
        tied = checkpoint.config.tie_word_embeddings
        name = f"{checkpoint.trunk_prefix}embed_tokens.weight" if tied else "lm_head.weight"
        rows = normed.detach().flatten(0, 1)
        gradient = torch.empty_like(rows)
        stride = -(-len(rows) // HEAD_TOKENS)
        for start in range(stride):
            # The LM head's own estimate is taken on every stride-th position, since rounding all of it is slow.
            measured = formats.get(name, ()) if start == 0 else ()
            piece = rows[start::stride]
            gradient[start::stride], sums = _through_head(checkpoint, name, piece, measured, generator)
            estimates.setdefault(name, {format: value / len(piece) for format, value in sums.items()})
        gradient = gradient.view_as(normed)
    else:
        gradient = torch.randn(normed.shape, generator=generator)
    torch.autograd.backward(normed, gradient)
    assert leaf.grad is not None
    return leaf.grad


def _through_head(
    checkpoint: WeightSource, name: str, hidden: Tensor, formats: Sequence[BlockFormat], generator: torch.Generator
) -> tuple[Tensor, dict[BlockFormat, float]]:
    """Return the gradients [T, D] of the log probability of sampled tokens, and the summed estimate of each format.

    The estimate is half the variance of the logits' error under the model's own probabilities p, which for independent
    errors is the sum of p (1 - p) times their squares.

    Args:
        hidden: the LM head's inputs [T, D].
    """
    probabilities = torch.empty(len(hidden), checkpoint.config.vocab_size)
    for start, rows in checkpoint.rows(name):
        probabilities[:, start : start + len(rows)] = hidden @ rows.float().t()
    draws = []
    for part in torch.split(probabilities, SAMPLED):
        part.copy_(part.softmax(-1))
        draws.append(_sample(part, generator))
    sampled = torch.cat(draws)
    gradient, squares = torch.zeros_like(hidden), hidden.square()
    sums = dict.fromkeys(formats, 0.0)
    for start, rows in checkpoint.rows(name):
        weight = rows.float()
        inside = slice(start, start + len(weight))
        gradient -= probabilities[:, inside] @ weight
        here = (sampled >= start) & (sampled < inside.stop)
        gradient[here] += weight[sampled[here] - start]
        for at in range(0, len(weight), ROWS) if formats else ():
            part = probabilities[:, start + at : min(start + at + ROWS, inside.stop)]
            _add(sums, weight[at : at + ROWS], (part - part.square()).t() @ squares)
    return gradient, {format: value / 2 for format, value in sums.items()}


def _sample(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a token from each row of probabilities [T, V], int64 [T]; ``multinomial`` draws a number for each token."""
    cumulative = probabilities.cumsum(-1)
    at = torch.rand(len(probabilities), 1, generator=generator) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, at).clamp_(max=probabilities.shape[1] - 1)[:, 0]


def _of_embedding(
    checkpoint: WeightSource, name: str, windows: Tensor, gradient: Tensor, formats: Sequence[BlockFormat]
) -> dict[BlockFormat, float]:
    """Return the embedding's estimate in each format, from the gradient [W, S, D] after it."""
    wanted, indices = torch.unique(windows, return_inverse=True)
    sums = dict.fromkeys(formats, 0.0)
    for start, rows in checkpoint.rows(name):
        inside = ((wanted >= start) & (wanted < start + len(rows))).nonzero()[:, 0]
        if not len(inside):
            continue
        weight = rows[wanted[inside] - start].float()
        at = torch.isin(indices, inside)
        local = torch.searchsorted(inside, indices[at])
        for format in formats:
            error = round_to_nearest(weight, format).dequantize() - weight
            sums[format] += total(error[local].square_().mul_(gradient[at].square())) / 2
    return {format: value / windows.numel() for format, value in sums.items()}
