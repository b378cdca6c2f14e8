"""GPTQ over a decoder, stage by stage, each on the outputs of the stages quantized before it.

Solved tensors are stored in a folder, one file each, until the artifact is written. The hidden states are stored beside
them, so that an interrupted run continues after the last complete layer.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ....files.json_file import parse_json
from ....models.weight_source import WeightSource
from ..formats.blocks import QuantizedRows, split
from ..formats.scheme import Scheme, Schemes
from ..methods.finite import check_quantizable
from ..methods.gptq import Hessian, gptq
from ..methods.row_sources import save_solved
from ..methods.rtn import round_to_nearest
from .experts import expert_stages, solve_experts
from .hessian import mean_outer_product
from .stream import LayerStream, Stage

HIDDEN = "hidden.safetensors"
HIDDEN_STATES, STATE = "hidden", "state"
VOCABULARY_BYTES = 1 << 24
"""Bytes, as stored, of the rows of an embedding or LM head that are solved at once."""

INT8_ACTIVATIONS, FLOAT_ACTIVATIONS = 4, 0
"""MatMulNBits' accuracy levels that have kernels on a CPU: int8 activations, and float ones."""


@torch.no_grad()
def solve_gptq(
    checkpoint: WeightSource,
    schemes: Schemes,
    windows: Tensor,
    embedding: Tensor | None,
    folder: Path,
    progress: Callable[[int, int], None],
) -> Schemes:
    """Quantize every weight of the layers, and every other one whose method is GPTQ, into ``folder``.

    Args:
        windows: int64 [W, S], the calibration text.
        embedding: float32 [D, D], the Hessian of the embedding's error (``Sensitivity.embedding``).
        progress: called with (tokens done, tokens in all); tokens count once for each stage of each layer.

    Returns:
        the schemes, with accuracy levels that follow from the activations' own error; experts that the text does not
        reach are rounded.
    """
    folder.mkdir(exist_ok=True)
    fingerprint = _fingerprint(checkpoint, schemes, windows)
    stream = LayerStream(checkpoint, windows)
    first, levels, unreached = _resume(folder, fingerprint, stream)
    depth, tokens = checkpoint.config.num_hidden_layers, windows.numel()
    for index in range(first, depth):
        layer = stream.load(index)
        prefix = f"{checkpoint.trunk_prefix}layers.{index}."
        stages, routed = stream.stages(layer), expert_stages(layer)
        passes = len(stages) + len(routed) + 1
        total = depth * passes * tokens
        done = index * passes * tokens

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress(done, total)  # noqa: B023 - called within this iteration

        for stage in stages:
            if any(f"{prefix}{name}.weight" in schemes for name in stage.names):
                levels |= _stage(stream, layer, stage, prefix, schemes, folder, advance)
            else:
                advance(tokens)
        if routed:
            unreached += solve_experts(stream, layer, prefix, schemes, folder, advance)
        stream.advance(layer, lambda count: advance(count * windows.shape[1]))
        state = {"fingerprint": fingerprint, "layers": index + 1, "levels": levels, "unreached": unreached}
        _save_state(folder, stream.hidden, state)
    for name, scheme in schemes.items():
        if scheme.method == "gptq" and not name.startswith(f"{checkpoint.trunk_prefix}layers."):
            _vocabulary(stream, name, scheme, embedding, folder)
    found = {name: replace(s, accuracy_level=levels.get(name, s.accuracy_level)) for name, s in schemes.items()}
    return found | {name: replace(found[name], method="rtn") for name in unreached}


def _stage(
    stream: LayerStream,
    layer: nn.Module,
    stage: Stage,
    prefix: str,
    schemes: Schemes,
    folder: Path,
    advance: Callable[[int], None],
) -> dict[str, int]:
    """Solve one stage, put the dequantized weights into the layer, and return the accuracy levels."""
    width = stage.modules[0].in_features
    found = [schemes.get(f"{prefix}{name}.weight") for name in stage.names]
    sizes = sorted({scheme.format.block_size for scheme in found if scheme is not None})
    rounding = {size: torch.zeros(width) for size in sizes}
    inputs = _with_rounding_errors(stream.inputs(layer, stage), rounding)
    try:
        hessian = Hessian.of(mean_outer_product(inputs, width, advance))
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        raise stream.overflow() from None
    levels: dict[str, int] = {}
    for name, module, scheme in zip(stage.names, stage.modules, found, strict=True):
        if scheme is None:
            continue
        tensor = f"{prefix}{name}.weight"
        weight = module.weight.detach()
        check_quantizable(weight, tensor)
        rows = _solve_one(weight, scheme, hessian)
        dequantized = rows.dequantize()
        weight_error = hessian.output_error(dequantized - weight)
        mean_rounding = rounding[scheme.format.block_size] / stream.windows.numel()
        activation_error = (dequantized.square() @ mean_rounding).sum().item()
        levels[tensor] = accuracy_level(scheme, weight_error, activation_error)
        save_solved(folder, tensor, [rows])
        weight.copy_(dequantized)
    return levels


def _solve_one(weight: Tensor, scheme: Scheme, hessian: Hessian) -> QuantizedRows:
    return round_to_nearest(weight, scheme.format) if scheme.method == "rtn" else gptq(weight, scheme.format, hessian)


def _vocabulary(stream: LayerStream, tensor: str, scheme: Scheme, embedding: Tensor | None, folder: Path) -> None:
    """Solve the LM head, the embedding, or the tensor that is both.

    A token is as frequent in the input as in the prediction, so that the Hessians of both uses are on one scale; for a
    tied embedding they are added.
    """
    checkpoint = stream.checkpoint
    is_embedding = tensor == f"{checkpoint.trunk_prefix}embed_tokens.weight"
    gram = torch.zeros(checkpoint.config.hidden_size, checkpoint.config.hidden_size)
    if not is_embedding or checkpoint.config.tie_word_embeddings:
        gram += mean_outer_product(stream.normed(), len(gram), lambda _: None)
    if is_embedding:
        assert embedding is not None, "the embedding is solved only where sensitivities are measured"
        gram += embedding
    hessian = Hessian.of(gram)
    pieces = []
    for _, rows in checkpoint.rows(tensor, VOCABULARY_BYTES):
        weight = rows.float()
        check_quantizable(weight, tensor)
        pieces.append(gptq(weight, scheme.format, hessian))
    save_solved(folder, tensor, pieces)


def accuracy_level(scheme: Scheme, weight_error: float, activation_error: float) -> int:
    """Return MatMulNBits' accuracy level from the output errors of the weight and of int8 activations.

    Activations stay float where their rounding would cost more than the weight's and a kernel supports it: the 4-bit
    kernel runs at half the speed; 8-bit weights have no fast kernel.
    """
    return FLOAT_ACTIVATIONS if scheme.format.bits == 4 and activation_error > weight_error else INT8_ACTIVATIONS


def _with_rounding_errors(inputs: Iterator[Tensor], rounding: Mapping[int, Tensor]) -> Iterator[Tensor]:
    """Pass the inputs on, and add up the squared errors of their int8 rounding in ``rounding``, by block size."""
    for piece in inputs:
        for size, total in rounding.items():
            blocks = split(piece, size)
            scale = blocks.abs().amax(-1, keepdim=True) / 127
            rounded = torch.where(scale == 0, 0.0, (blocks / scale).round_() * scale)
            total += (rounded - blocks).square_().sum(0).flatten()[: piece.shape[1]]
        yield piece


def _fingerprint(checkpoint: WeightSource, schemes: Schemes, windows: Tensor) -> str:
    """Hash all that a layer's solution depends on; weight files enter by size and modification time."""
    digest = hashlib.sha256(windows.numpy().tobytes())
    for file in sorted({info.file for info in checkpoint.tensors.values()}):
        status = file.stat()
        digest.update(f"{file.resolve()} {status.st_size} {status.st_mtime_ns}\n".encode())
    digest.update(json.dumps({name: asdict(scheme) for name, scheme in schemes.items()}, sort_keys=True).encode())
    return digest.hexdigest()


def _save_state(folder: Path, hidden: Tensor, state: Mapping[str, object]) -> None:
    """Store the hidden states and the number of layers done, in one file that is renamed into place when complete.

    Separate files could disagree after an interruption, and the resumed solution would be wrong.
    """
    new = folder / f"{HIDDEN}.new"
    save_file({HIDDEN_STATES: hidden}, new, {STATE: json.dumps(state)})
    new.rename(folder / HIDDEN)


def _resume(folder: Path, fingerprint: str, stream: LayerStream) -> tuple[int, dict[str, int], list[str]]:
    """Return the number of finished layers, their accuracy levels, and the weights of experts without a token.

    Their hidden states are loaded into the stream.
    """
    if not (folder / HIDDEN).is_file():
        return 0, {}, []
    with safe_open(folder / HIDDEN, "pt") as file:
        state = parse_json(file.metadata()[STATE])
        if state["fingerprint"] != fingerprint:
            return 0, {}, []
        stream.hidden = file.get_tensor(HIDDEN_STATES)
    return state["layers"], state["levels"], state["unreached"]
