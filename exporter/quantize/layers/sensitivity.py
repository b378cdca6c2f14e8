"""How much the error of each weight matters to the model's answer, before anything is quantized.

For a causal LM the measure is the Kullback-Leibler divergence of the next token, in nats per token. To second order it
is half the Fisher information's quadratic form of the outputs' error (Amari, 1998): with g the gradient of the log
probability of a token drawn from the model itself, half the mean of (g . D x)^2 over tokens, D the weight's error and x
its input. One pass through the model and one back give it for every weight and format, where measuring would take
one pass for each. For other heads g is the gradient of a random projection of the final hidden state, and the
measure says which weight matters more, and not how much.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....artifact import Task
from ....models.checkpoint import Checkpoint
from ..formats.blocks import BlockFormat
from ..methods.rtn import round_to_nearest
from .stream import LayerStream

Formats = Mapping[str, Sequence[BlockFormat]]
Damages = dict[str, dict[BlockFormat, float]]
"""By tensor of the checkpoint and format."""


@dataclass(frozen=True)
class Sensitivity:
    """``damages`` in nats per token; ``embedding`` [D, D], the mean of g g^T behind the embedding: what an error of the
    embedded token costs, in the measure in which the mean of x x^T says what an error of the LM head's row costs."""

    damages: Damages
    embedding: Tensor


HEAD_TOKENS = 256
"""Positions whose logits are in memory at once."""

ROWS = 1024
"""Rows of a weight that are rounded at once."""

WINDOWS = 4
SEED = 20


def measure(
    checkpoint: Checkpoint,
    task: Task,
    windows: Tensor,
    formats: Formats,
    heard: Callable[[int, int], None],
) -> Sensitivity:
    """The damage of rounding each of some weights to the nearest in each of its formats.

    Args:
        windows: int64 [W, S]; a few suffice.
        formats: by tensor of the checkpoint: projections, the embedding, the head.
        heard: told (layers done, layers in all), each layer counted forward and back.
    """
    generator = torch.Generator().manual_seed(SEED)
    stream = LayerStream(checkpoint, windows)
    depth = checkpoint.config.num_hidden_layers
    before: list[Tensor] = []
    for index in range(depth):
        before.append(stream.hidden.clone())
        stream.advance(stream.load(index))
        heard(index + 1, 2 * depth)
    damages: Damages = {}
    gradient = _gradient_of_head(checkpoint, task, stream.hidden, formats, generator, damages)
    for index in reversed(range(depth)):
        gradient = _through_layer(stream, index, before.pop(), gradient, formats, damages)
        heard(2 * depth - index, 2 * depth)
    name = f"{checkpoint.trunk_prefix}embed_tokens.weight"
    embedding = _of_embedding(checkpoint, name, windows, gradient, formats.get(name, ()))
    # Tied, it is one table with two uses.
    damages[name] = {format: damage + damages.get(name, {}).get(format, 0.0) for format, damage in embedding.items()}
    rows = gradient.flatten(0, 1)
    return Sensitivity(damages, rows.t() @ rows / len(rows))


def _through_layer(
    stream: LayerStream,
    index: int,
    hidden: Tensor,
    gradient: Tensor,
    formats: Formats,
    damages: Damages,
) -> Tensor:
    """Note the damages of a layer's projections; return the gradient in front of the layer."""
    layer = stream.load(index)
    linears = {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
    inputs: dict[str, list[Tensor]] = {name: [] for name in linears}
    outputs: dict[str, list[Tensor]] = {name: [] for name in linears}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(_: nn.Module, taken: tuple[Tensor, ...], given: Tensor) -> None:
            inputs[name].append(taken[0].detach()[0])
            outputs[name].append(given)
            given.retain_grad()

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
        for given in outputs.values():
            grad = given[row].grad
            assert grad is not None
            given[row] = grad[0]  # the graph goes, the gradient stays
    for hook in hooks:
        hook.remove()
    prefix = f"{stream.checkpoint.trunk_prefix}layers.{index}."
    for name, module in linears.items():
        taken, felt = torch.cat(inputs.pop(name)), torch.cat(outputs.pop(name))
        tensor = f"{prefix}{name}.weight"
        damages[tensor] = {f: _damage(module.weight, f, taken, felt) for f in formats.get(tensor, ())}
    return back


def _damage(weight: Tensor, format: BlockFormat, inputs: Tensor, gradient: Tensor) -> float:
    """Half the mean of (g . D x)^2; inputs [T, K], gradient [T, N]."""
    felt = torch.zeros(len(inputs))
    for rows, part in zip(torch.split(weight, ROWS), torch.split(gradient, ROWS, 1), strict=True):
        error = round_to_nearest(rows, format).dequantize() - rows
        felt += ((inputs @ error.t()) * part).sum(-1)
    return felt.square().mean().item() / 2


def _gradient_of_head(
    checkpoint: Checkpoint,
    task: Task,
    hidden: Tensor,
    formats: Formats,
    generator: torch.Generator,
    damages: Damages,
) -> Tensor:
    """The gradient at the last layer's output [W, S, D]; for a causal LM, note the damage of its head too."""
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
            # The head's own damage is measured on every stride-th position: rounding the whole table takes its time.
            measured = formats.get(name, ()) if start == 0 else ()
            piece = rows[start::stride]
            gradient[start::stride], sums = _through_head(checkpoint, name, piece, measured, generator)
            damages.setdefault(name, {format: value / len(piece) for format, value in sums.items()})
        gradient = gradient.view_as(normed)
    else:
        gradient = torch.randn(normed.shape, generator=generator)
    torch.autograd.backward(normed, gradient)
    assert leaf.grad is not None
    return leaf.grad


def _through_head(
    checkpoint: Checkpoint, name: str, hidden: Tensor, formats: Sequence[BlockFormat], generator: torch.Generator
) -> tuple[Tensor, dict[BlockFormat, float]]:
    """For the head's inputs [T, D]: the gradients [T, D] of the log probability of sampled tokens, and the summed
    damage of each format: half the variance of the logits' error under the model's own probabilities."""
    logits = torch.cat([hidden @ rows.float().t() for _, rows in checkpoint.rows(name)], 1)
    probabilities = logits.softmax(-1)
    sampled = torch.multinomial(probabilities, 1, generator=generator)
    pull = -probabilities
    pull.scatter_add_(1, sampled, torch.ones_like(sampled, dtype=pull.dtype))
    gradient = torch.zeros_like(hidden)
    first = {format: torch.zeros(len(hidden)) for format in formats}
    second = {format: torch.zeros(len(hidden)) for format in formats}
    for start, rows in checkpoint.rows(name):
        weight = rows.float()
        inside = slice(start, start + len(weight))
        gradient += pull[:, inside] @ weight
        for format in formats:
            for at in range(0, len(weight), ROWS):
                some = weight[at : at + ROWS]
                error = hidden @ (round_to_nearest(some, format).dequantize() - some).t()
                chance = probabilities[:, start + at : start + at + len(some)]
                first[format] += (chance * error).sum(-1)
                second[format] += (chance * error.square()).sum(-1)
    return gradient, {f: ((second[f] - first[f].square()) / 2).sum().item() for f in formats}


def _of_embedding(
    checkpoint: Checkpoint, name: str, windows: Tensor, gradient: Tensor, formats: Sequence[BlockFormat]
) -> dict[BlockFormat, float]:
    wanted, places = torch.unique(windows, return_inverse=True)
    sums = dict.fromkeys(formats, 0.0)
    for start, rows in checkpoint.rows(name):
        inside = ((wanted >= start) & (wanted < start + len(rows))).nonzero()[:, 0]
        if not len(inside):
            continue
        weight = rows[wanted[inside] - start].float()
        at = torch.isin(places, inside)
        local = torch.searchsorted(inside, places[at])
        for format in formats:
            error = round_to_nearest(weight, format).dequantize() - weight
            sums[format] += (error[local] * gradient[at]).sum(-1).square().sum().item() / 2
    return {format: value / windows.numel() for format, value in sums.items()}
