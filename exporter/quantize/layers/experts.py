"""GPTQ of the experts of a layer, each on the tokens that the router sends to it.

Gate and up of all experts read the layer's own input, and down what the quantized gate and up compute: two passes over
the calibration text, or more where the Hessians of all experts do not fit into memory at once. An expert that the text
does not reach is rounded to the nearest.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..formats.scheme import Schemes
from ..methods.finite import check_quantizable
from ..methods.gptq import Hessian, gptq
from ..methods.row_sources import save_solved
from ..methods.rtn import round_to_nearest
from .products import as_multiplied, bfloat16_products
from .stream import LayerStream, Stage

GRAM_BYTES = 1 << 30
"""The size of the Hessians that are in memory at once."""

Inputs = Callable[[nn.Module, tuple[Tensor, ...]], None]
Gram = tuple[Tensor, int]
"""The mean of x x^T over some tokens, float32 [K, K], and their number."""


def expert_stages(layer: nn.Module) -> list[list[Stage]]:
    """Return gate and up of each expert, and down of each; nothing for a layer without experts."""
    names = {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
    paths = dict.fromkeys(name.rpartition(".")[0] for name in names if ".experts." in name)
    parts = (("gate_proj", "up_proj"), ("down_proj",))
    found = [
        [
            Stage(tuple(f"{path}.{part}" for part in some), tuple(names[f"{path}.{part}"] for part in some))
            for path in paths
        ]
        for some in parts
    ]
    return [stages for stages in found if stages]


@torch.no_grad()
def solve_experts(
    stream: LayerStream, layer: nn.Module, prefix: str, schemes: Schemes, folder: Path, advance: Callable[[int], None]
) -> list[str]:
    """Quantize the experts of a layer and put the dequantized weights into it.

    Args:
        prefix: of the layer's tensors.
        advance: called with the tokens of each batch, for each of the two stages.

    Returns:
        the tensors of the experts that the text does not reach.
    """
    unreached: list[str] = []
    for stages in expert_stages(layer):
        width = stages[0].modules[0].in_features
        some = max(1, GRAM_BYTES // (4 * width * width))
        for start in range(0, len(stages), some):
            part = stages[start : start + some]
            grams = _grams(stream, layer, part, width, advance if start == 0 else lambda _: None)
            for stage, gram in zip(part, grams, strict=True):
                tensors = [f"{prefix}{name}.weight" for name in stage.names]
                if gram is None:
                    unreached += [tensor for tensor in tensors if tensor in schemes]
                _solve(stream, stage, tensors, gram, schemes, folder)
    return unreached


def _solve(
    stream: LayerStream, stage: Stage, tensors: Sequence[str], gram: Gram | None, schemes: Schemes, folder: Path
) -> None:
    try:
        hessian = None if gram is None else Hessian.of(*gram)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        raise stream.overflow() from None
    for tensor, module in zip(tensors, stage.modules, strict=True):
        scheme = schemes.get(tensor)
        if scheme is None:
            continue
        weight = module.weight.detach()
        check_quantizable(weight, tensor)
        if hessian is None or scheme.method == "rtn":
            rows = round_to_nearest(weight, scheme.format)
        else:
            rows = gptq(weight, scheme.format, hessian)
        save_solved(folder, tensor, [rows])
        weight.copy_(rows.dequantize())


def _grams(
    stream: LayerStream, layer: nn.Module, stages: Sequence[Stage], width: int, advance: Callable[[int], None]
) -> list[Gram | None]:
    """Return the sums of each expert; None for one without tokens."""
    grams: list[Tensor | None] = [None] * len(stages)
    counts = [0] * len(stages)
    with bfloat16_products():
        for index, inputs in routed_inputs(stream, layer, stages, advance):
            gram = grams[index]
            if gram is None:
                gram = grams[index] = torch.zeros(width, width)
            rows = as_multiplied(inputs)
            gram.addmm_(rows.t(), rows)
            counts[index] += len(inputs)
    return [None if gram is None else (gram / count, count) for gram, count in zip(grams, counts, strict=True)]


def routed_inputs(
    stream: LayerStream, layer: nn.Module, stages: Sequence[Stage], advance: Callable[[int], None]
) -> Iterator[tuple[int, Tensor]]:
    """Yield the inputs of the stages, float32 [n, K], with the stage's index, a few windows at a time."""
    taken: list[tuple[int, Tensor]] = []

    def take(index: int) -> Inputs:
        return lambda _, inputs: taken.append((index, inputs[0].flatten(0, -2).float()))

    hooks = [stage.modules[0].register_forward_pre_hook(take(index)) for index, stage in enumerate(stages)]
    try:
        for tokens in stream.run_batches(layer):
            yield from taken
            taken.clear()
            advance(tokens)
    finally:
        for hook in hooks:
            hook.remove()
