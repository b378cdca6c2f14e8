"""GPTQ over a decoder, stage by stage, each on the outputs of the stages quantized before it, towards the float model.

Two streams of hidden states run through the layers: one through those that are quantized, the other through the float
ones (``hessian.py`` says what for). Solved tensors are stored in a folder, one file each, until the artifact is
written. With ``resume`` the hidden states of both streams are stored beside them, and an interrupted run continues
after the last complete layer.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ....files.json_file import parse_json
from ....machine import give_back_memory
from ....models.weight_source import WeightSource
from ..formats.blocks import QuantizedRows, split
from ..formats.scheme import Scheme, Schemes
from ..methods.finite import check_quantizable
from ..methods.gptq import Hessian, gptq
from ..methods.row_sources import save_solved
from ..methods.rtn import round_to_nearest
from .experts import expert_stages, solve_experts
from .hessian import target
from .products import bfloat16_products
from .sensitivity import Sensitivity
from .stream import Inputs, LayerStream, Stage
from .vocabulary import solve_embedding, solve_head

HIDDEN = "hidden.safetensors"
HIDDEN_STATES, FLOAT_STATES, STATE = "hidden", "float_hidden", "state"
ROUNDED_EVERY = 16
"""One token in so many says how well int8 activations fit."""

INT8_ACTIVATIONS, FLOAT_ACTIVATIONS = 4, 0
"""MatMulNBits' accuracy levels that have kernels on a CPU: int8 activations, and float ones."""


@torch.no_grad()
def solve_gptq(
    checkpoint: WeightSource,
    schemes: Schemes,
    windows: Tensor,
    sensitivity: Sensitivity | None,
    folder: Path,
    progress: Callable[[int, int], None],
    *,
    resume: bool = False,
) -> Schemes:
    """Quantize every weight of the layers, and every other one whose method is GPTQ, into ``folder``.

    Args:
        windows: int64 [W, S], the calibration text.
        sensitivity: what GPTQ of an embedding needs.
        progress: called with (tokens done, tokens in all); tokens count once for each stage of each layer.
        resume: go on after the layers that an earlier call finished, and store what a later one needs for that.

    Returns:
        the schemes, with accuracy levels that follow from the activations' own error; experts that the text does not
        reach are rounded.
    """
    folder.mkdir(exist_ok=True)
    give_back_memory()  # that of the measurements
    fingerprint = _fingerprint(checkpoint, schemes, windows)
    stream = LayerStream(checkpoint, windows)
    original = stream.copy()
    first, levels, unreached = _resume(folder, fingerprint, stream, original) if resume else (0, {}, [])
    embedding = f"{checkpoint.trunk_prefix}embed_tokens.weight"
    if embedding in schemes and schemes[embedding].method == "gptq" and first == 0:
        assert sensitivity is not None, "the embedding is solved only where sensitivities are measured"
        solve_embedding(stream, embedding, schemes[embedding], sensitivity, folder)
    for index in range(first, checkpoint.config.num_hidden_layers):
        found, missed = _solve_layer(stream, original, index, schemes, folder, progress)
        levels |= found
        unreached += missed
        if resume:
            state = {"fingerprint": fingerprint, "layers": index + 1, "levels": levels, "unreached": unreached}
            _save_state(folder, stream, original, state)
        give_back_memory()  # freed pieces of all sizes would add up from layer to layer
    head = schemes.get("lm_head.weight")
    if head is not None and head.method == "gptq":
        solve_head(stream, original, "lm_head.weight", head, folder)
    solved = {name: replace(s, accuracy_level=levels.get(name, s.accuracy_level)) for name, s in schemes.items()}
    return solved | {name: replace(solved[name], method="rtn") for name in unreached}


def _solve_layer(
    stream: LayerStream,
    original: LayerStream,
    index: int,
    schemes: Schemes,
    folder: Path,
    progress: Callable[[int, int], None],
) -> tuple[dict[str, int], list[str]]:
    """Solve a layer's weights, and run both streams through it.

    Returns:
        the accuracy levels, and the weights of experts that the text does not reach.
    """
    layer = stream.load(index)
    twin = original.twin(layer, index)
    prefix = f"{stream.checkpoint.trunk_prefix}layers.{index}."
    stages, routed = list(zip(stream.stages(layer), original.stages(twin), strict=True)), expert_stages(layer)
    passes, tokens = len(stages) + len(routed) + 1, stream.windows.numel()
    total, done = stream.config.num_hidden_layers * passes * tokens, index * passes * tokens

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    levels: dict[str, int] = {}
    for number, (stage, same) in enumerate(stages):
        last = number + 1 == len(stages)
        if not any(f"{prefix}{name}.weight" in schemes for name in stage.names):
            advance(tokens)
            if last:
                original.advance(twin)
            continue
        pairs = zip(stream.inputs(layer, stage), original.inputs(twin, same, advance=last), strict=True)
        try:
            levels |= _stage(_counted(pairs, advance), stage, prefix, schemes, folder)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            raise stream.overflow() from None
    unreached = solve_experts(stream, layer, prefix, schemes, folder, advance) if routed else []
    stream.advance(layer, lambda count: advance(count * stream.windows.shape[1]))
    return levels, unreached


def _counted(pairs: Iterable[tuple[Inputs, Inputs]], advance: Callable[[int], None]) -> Iterator[tuple[Inputs, Inputs]]:
    """Pass the inputs on, and call ``advance`` with the tokens of each batch."""
    for pair in pairs:
        yield pair
        advance(len(pair[0].rows))


def _stage(
    pairs: Iterable[tuple[Inputs, Inputs]], stage: Stage, prefix: str, schemes: Schemes, folder: Path
) -> dict[str, int]:
    """Solve one stage, give the layer the dequantized weights, and return the accuracy levels.

    Raises:
        torch.linalg.LinAlgError: the inputs are not finite.
    """
    found = [schemes.get(f"{prefix}{name}.weight") for name in stage.names]
    rounding = Rounding({scheme.format.block_size for scheme in found if scheme is not None})
    weights = tuple(module.weight.detach() for module in stage.modules)
    aim = target(pairs, weights, stage.norm, rounding.add)
    levels: dict[str, int] = {}
    for name, module, weight, scheme in zip(stage.names, stage.modules, weights, found, strict=True):
        if scheme is None:
            continue
        tensor = f"{prefix}{name}.weight"
        check_quantizable(weight, tensor)
        # What is rounded to the nearest is rounded again from the checkpoint when it is stored.
        wanted = weight if scheme.method == "rtn" else aim.weight(weight)
        rows = _solve_one(wanted, scheme, aim.hessian)
        dequantized = rows.dequantize()
        with bfloat16_products():
            weight_error = aim.hessian.output_error(dequantized - wanted)
        activation_error = (dequantized.square() @ rounding.mean(scheme.format.block_size)).sum().item()
        levels[tensor] = accuracy_level(scheme, weight_error, activation_error)
        save_solved(folder, tensor, [rows])
        module.weight = nn.Parameter(dequantized, requires_grad=False)
    return levels


def _solve_one(weight: Tensor, scheme: Scheme, hessian: Hessian) -> QuantizedRows:
    return round_to_nearest(weight, scheme.format) if scheme.method == "rtn" else gptq(weight, scheme.format, hessian)


def accuracy_level(scheme: Scheme, weight_error: float, activation_error: float) -> int:
    """Return MatMulNBits' accuracy level from the output errors of the weight and of int8 activations.

    Activations stay float where their rounding would cost more than the weight's and a kernel supports it: the 4-bit
    kernel runs at half the speed; 8-bit weights have no fast kernel.
    """
    return FLOAT_ACTIVATIONS if scheme.format.bits == 4 and activation_error > weight_error else INT8_ACTIVATIONS


class Rounding:
    """The mean squared error that int8 activations have in each column, by block size, from some of the tokens."""

    def __init__(self, sizes: Collection[int]) -> None:
        self._totals: dict[int, Tensor | float] = dict.fromkeys(sorted(sizes), 0.0)
        self._tokens = 0

    def add(self, rows: Tensor) -> None:
        """Add some inputs, float32 [T, K]."""
        some = rows[::ROUNDED_EVERY]
        for size in self._totals:
            blocks = split(some, size)
            scale = blocks.abs().amax(-1, keepdim=True) / 127
            rounded = torch.where(scale == 0, 0.0, (blocks / scale).round_() * scale)
            self._totals[size] += (rounded - blocks).square_().sum(0).flatten()[: some.shape[1]]
        self._tokens += len(some)

    def mean(self, size: int) -> Tensor:
        """Return the error of blocks of ``size``, float32 [K]."""
        return self._totals[size] / torch.tensor(self._tokens)


def _fingerprint(checkpoint: WeightSource, schemes: Schemes, windows: Tensor) -> str:
    """Hash all that a layer's solution depends on; weight files enter by size and modification time."""
    digest = hashlib.sha256(windows.numpy().tobytes())
    for file in sorted({info.file for info in checkpoint.tensors.values()}):
        status = file.stat()
        digest.update(f"{file.resolve()} {status.st_size} {status.st_mtime_ns}\n".encode())
    digest.update(json.dumps({name: asdict(scheme) for name, scheme in schemes.items()}, sort_keys=True).encode())
    return digest.hexdigest()


def _save_state(folder: Path, stream: LayerStream, original: LayerStream, state: Mapping[str, object]) -> None:
    """Store the hidden states and the number of layers done, in one file that is renamed into place when complete.

    Separate files could disagree after an interruption, and the resumed solution would be wrong.
    """
    new = folder / f"{HIDDEN}.new"
    states = {HIDDEN_STATES: stream.hidden, FLOAT_STATES: original.hidden}
    save_file(states, new, {STATE: json.dumps(state)})
    new.rename(folder / HIDDEN)


def _resume(
    folder: Path, fingerprint: str, stream: LayerStream, original: LayerStream
) -> tuple[int, dict[str, int], list[str]]:
    """Return the number of finished layers, their accuracy levels, and the weights of experts without a token.

    Their hidden states are loaded into the streams.
    """
    if not (folder / HIDDEN).is_file():
        return 0, {}, []
    with safe_open(folder / HIDDEN, "pt") as file:
        state = parse_json(file.metadata()[STATE])
        if state["fingerprint"] != fingerprint:
            return 0, {}, []
        stream.hidden, original.hidden = file.get_tensor(HIDDEN_STATES), file.get_tensor(FLOAT_STATES)
    return state["layers"], state["levels"], state["unreached"]
