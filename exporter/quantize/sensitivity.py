"""How much the error of each weight matters to the model's answer, before anything is quantized.

For a causal LM the measure is the Kullback-Leibler divergence of the next token, in nats per token. To second order it
is half the Fisher information's quadratic form of the outputs' error (Amari, 1998): with g the gradient of the log
probability of a token drawn from the model itself, half the mean of (g . D x)^2 over tokens, D the weight's error and x
its input. One pass through the model and one back give it for every weight and format, where measuring would take
one pass for each. For other heads g is the gradient of a random projection of the final hidden state, and the
measure says which weight matters more, and not how much.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...artifact import Task
from ...models.checkpoint import Checkpoint
from .blocks import BlockFormat
from .layers import LayerStream
from .rtn import round_to_nearest

Damages = dict[str, dict[BlockFormat, float]]
"""By tensor of the checkpoint and format."""

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
    formats: Sequence[BlockFormat],
    heard: Callable[[int, int], None],
) -> Damages:
    """The damage of rounding each projection, the embedding and the head to the nearest in each format.

    Args:
        windows: int64 [W, S]; a few suffice.
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
    embedding = _of_embedding(checkpoint, name, windows, gradient, formats)
    if name in damages:  # tied: one table, two uses
        damages[name] = {format: damages[name][format] + embedding[format] for format in formats}
    else:
        damages[name] = embedding
    return damages


def _through_layer(
    stream: LayerStream,
    index: int,
    hidden: Tensor,
    gradient: Tensor,
    formats: Sequence[BlockFormat],
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
        damages[f"{prefix}{name}.weight"] = {format: _damage(module.weight, format, taken, felt) for format in formats}
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
    formats: Sequence[BlockFormat],
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
        head = _Head(checkpoint, name, formats, generator)
        rows = normed.detach().flatten(0, 1)
        gradient = torch.cat([head(piece) for piece in torch.split(rows, HEAD_TOKENS)]).view_as(normed)
        damages[name] = {format: value / len(rows) for format, value in head.sums.items()}
    else:
        gradient = torch.randn(normed.shape, generator=generator)
    torch.autograd.backward(normed, gradient)
    assert leaf.grad is not None
    return leaf.grad


class _Head:
    """Gradients of the log probability of sampled tokens with respect to the head's input; the table is streamed."""

    def __init__(
        self, checkpoint: Checkpoint, name: str, formats: Sequence[BlockFormat], generator: torch.Generator
    ) -> None:
        self.checkpoint, self.name, self.generator = checkpoint, name, generator
        self.sums = dict.fromkeys(formats, 0.0)

    def __call__(self, hidden: Tensor) -> Tensor:
        """[T, D] to [T, D]."""
        logits = torch.cat([hidden @ rows.float().t() for _, rows in self.checkpoint.rows(self.name)], 1)
        probabilities = logits.softmax(-1)
        sampled = torch.multinomial(probabilities, 1, generator=self.generator)
        pull = -probabilities
        pull.scatter_add_(1, sampled, torch.ones_like(sampled, dtype=pull.dtype))
        gradient = torch.zeros_like(hidden)
        first = {format: torch.zeros(len(hidden)) for format in self.sums}
        second = {format: torch.zeros(len(hidden)) for format in self.sums}
        for start, rows in self.checkpoint.rows(self.name):
            weight = rows.float()
            inside = slice(start, start + len(weight))
            gradient += pull[:, inside] @ weight
            for format in self.sums:
                error = hidden @ (round_to_nearest(weight, format).dequantize() - weight).t()
                first[format] += (probabilities[:, inside] * error).sum(-1)
                second[format] += (probabilities[:, inside] * error.square()).sum(-1)
        for format in self.sums:  # half the variance of the logits' error under the model's own probabilities
            self.sums[format] += ((second[format] - first[format].square()) / 2).sum().item()
        return gradient


def _of_embedding(
    checkpoint: Checkpoint, name: str, windows: Tensor, gradient: Tensor, formats: Sequence[BlockFormat]
) -> dict[BlockFormat, float]:
    wanted, places = torch.unique(windows, return_inverse=True)
    sums = dict.fromkeys(formats, 0.0)
    for start, rows in checkpoint.rows(name):
        inside = ((wanted >= start) & (wanted < start + len(rows))).nonzero()[:, 0]
        weight = rows[wanted[inside] - start].float()
        at = torch.isin(places, inside)
        local = torch.searchsorted(inside, places[at])
        for format in formats:
            error = round_to_nearest(weight, format).dequantize() - weight
            sums[format] += (error[local] * gradient[at]).sum(-1).square().sum().item() / 2
    return {format: value / windows.numel() for format, value in sums.items()}
