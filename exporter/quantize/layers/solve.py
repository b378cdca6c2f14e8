"""GPTQ over a decoder: layer by layer, stage by stage, each on inputs that went through what is quantized already.

What is solved lies in a folder, one file for each tensor, until the artifact is written; with the hidden states beside
it, an interrupted run goes on from the last whole layer.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ....models.checkpoint import Checkpoint
from ..allocation.plan import Plan, WeightPlan
from ..formats.blocks import Blocks, split
from ..formats.recipes import solved_file
from ..methods.finite import check_quantizable
from ..methods.gptq import Curvature, gptq
from ..methods.rtn import round_to_nearest
from .stream import LayerStream, Stage, energy

HIDDEN = "hidden.safetensors"
HIDDEN_STATES, STATE = "hidden", "state"
TABLE_BYTES = 1 << 24
"""Of a table's rows that are solved at once, as they are stored."""

FULL, FLOAT_ACTIVATIONS = 4, 0
"""MatMulNBits' accuracy levels that have kernels on a CPU: int8 activations, and float ones."""


def solve(
    checkpoint: Checkpoint,
    plan: Plan,
    windows: Tensor,
    embedding: Tensor | None,
    folder: Path,
    heard: Callable[[int, int], None],
) -> Plan:
    """Quantize every weight whose method in ``plan`` is more than rounding, into ``folder``.

    Args:
        windows: int64 [W, S], the calibration text.
        embedding: float32 [D, D], what errors of the embedded tokens cost (``Sensitivity.embedding``).
        heard: told (tokens done, tokens in all), counted once for each stage of each layer.

    Returns:
        the plan with accuracy levels as the activations' own damage makes them.
    """
    folder.mkdir(exist_ok=True)
    fingerprint = _fingerprint(checkpoint, plan, windows)
    stream = LayerStream(checkpoint, windows)
    first, levels = _resume(folder, fingerprint, stream)
    depth, tokens = checkpoint.config.num_hidden_layers, windows.numel()
    for index in range(first, depth):
        layer = stream.load(index)
        prefix = f"{checkpoint.trunk_prefix}layers.{index}."
        stages = stream.stages(layer)
        total = depth * (len(stages) + 1) * tokens
        done = index * (len(stages) + 1) * tokens

        def advance(count: int) -> None:
            nonlocal done
            done += count
            heard(done, total)  # noqa: B023 - called within this turn

        for stage in stages:
            wanted = {name: plan[f"{prefix}{name}.weight"] for name in stage.names if f"{prefix}{name}.weight" in plan}
            if wanted:
                levels |= _stage(stream, layer, stage, prefix, plan, folder, advance)
            else:
                advance(tokens)
        stream.advance(layer, lambda rows: advance(rows * windows.shape[1]))
        _keep(folder, stream.hidden, {"fingerprint": fingerprint, "layers": index + 1, "levels": levels})
    for name, item in plan.items():
        if item.method == "gptq" and not name.startswith(f"{checkpoint.trunk_prefix}layers."):
            _table(stream, name, item, embedding, folder)
    return {name: replace(item, accuracy_level=levels.get(name, item.accuracy_level)) for name, item in plan.items()}


def _stage(
    stream: LayerStream,
    layer: nn.Module,
    stage: Stage,
    prefix: str,
    plan: Plan,
    folder: Path,
    advance: Callable[[int], None],
) -> dict[str, int]:
    """Solve one stage, put what the codes stand for into the layer, and return the accuracy levels."""
    width = stage.modules[0].in_features
    planned = [plan.get(f"{prefix}{name}.weight") for name in stage.names]
    sizes = sorted({item.format.block_size for item in planned if item is not None})
    rounding = {size: torch.zeros(width) for size in sizes}
    hessian = energy(_overheard(stream.inputs(layer, stage), rounding), width, advance)
    try:
        curvature = Curvature.of(hessian)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        raise stream.overflow() from None
    levels: dict[str, int] = {}
    for name, module, item in zip(stage.names, stage.modules, planned, strict=True):
        if item is None:
            continue
        tensor = f"{prefix}{name}.weight"
        weight = module.weight.detach()
        check_quantizable(weight, tensor)
        blocks = _solve_one(weight, item, curvature)
        found = blocks.dequantize()
        own = curvature.damage(found - weight)
        tokens = stream.windows.numel()
        activations = (found.square() @ (rounding[item.format.block_size] / tokens)).sum().item()
        levels[tensor] = accuracy_level(item, own, activations)
        _save(folder, tensor, [blocks])
        weight.copy_(found)
    return levels


def _solve_one(weight: Tensor, item: WeightPlan, curvature: Curvature) -> Blocks:
    return round_to_nearest(weight, item.format) if item.method == "rtn" else gptq(weight, item.format, curvature)


def _table(stream: LayerStream, tensor: str, item: WeightPlan, embedding: Tensor | None, folder: Path) -> None:
    """Solve the LM head or the embedding, or the one table that is both.

    A token is as frequent where it is read as where it is predicted, so that a row's error costs in proportion to
    either's curvature, and a tied table's in proportion to their sum.
    """
    checkpoint = stream.checkpoint
    gathered = tensor == f"{checkpoint.trunk_prefix}embed_tokens.weight"
    curvature = torch.zeros(checkpoint.config.hidden_size, checkpoint.config.hidden_size)
    if not gathered or checkpoint.config.tie_word_embeddings:
        curvature += energy(stream.normed(), len(curvature), lambda _: None)
    if gathered:
        assert embedding is not None, "a table is solved where sensitivities are measured"
        curvature += embedding
    of = Curvature.of(curvature)
    pieces = []
    for _, rows in checkpoint.rows(tensor, TABLE_BYTES):
        weight = rows.float()
        check_quantizable(weight, tensor)
        pieces.append(gptq(weight, item.format, of))
    _save(folder, tensor, pieces)


def _save(folder: Path, tensor: str, pieces: Sequence[Blocks]) -> None:
    content = {
        "codes": torch.cat([piece.codes for piece in pieces]),
        "scales": torch.cat([piece.scales for piece in pieces]),
        "zero_points": torch.cat([piece.zero_points for piece in pieces]),
    }
    save_file(content, solved_file(folder, tensor))


def accuracy_level(item: WeightPlan, weights: float, activations: float) -> int:
    """Int8 activations, unless they would do more damage to the output than the weight's own error and there is a
    kernel that does without: for 4 bits there is, at half the speed; for 8 bits there is none worth the name."""
    return FLOAT_ACTIVATIONS if item.format.bits == 4 and activations > weights else FULL


def _overheard(inputs: Iterator[Tensor], rounding: Mapping[int, Tensor]) -> Iterator[Tensor]:
    """The inputs as they are; the squared errors of their int8 rounding, by block size, are added up on the way."""
    for piece in inputs:
        for size, total in rounding.items():
            blocks = split(piece, size)
            scale = blocks.abs().amax(-1, keepdim=True) / 127
            rounded = torch.where(scale == 0, 0.0, (blocks / scale).round_() * scale)
            total += (rounded - blocks).square_().sum(0).flatten()[: piece.shape[1]]
        yield piece


def _fingerprint(checkpoint: Checkpoint, plan: Plan, windows: Tensor) -> str:
    """Of all that a layer's solution depends on; the weights stand in it by their files' sizes and times."""
    digest = hashlib.sha256(windows.numpy().tobytes())
    for file in checkpoint.files:
        status = file.stat()
        digest.update(f"{file.resolve()} {status.st_size} {status.st_mtime_ns}\n".encode())
    digest.update(json.dumps({name: asdict(item) for name, item in plan.items()}, sort_keys=True).encode())
    return digest.hexdigest()


def _keep(folder: Path, hidden: Tensor, state: Mapping[str, object]) -> None:
    """Hidden states and how far they are go into one file, which is there whole or not at all: the states of one layer
    with the count of another would be solved to something else."""
    new = folder / f"{HIDDEN}.new"
    save_file({HIDDEN_STATES: hidden}, new, {STATE: json.dumps(state)})
    new.rename(folder / HIDDEN)


def _resume(folder: Path, fingerprint: str, stream: LayerStream) -> tuple[int, dict[str, int]]:
    """How many layers are done, and their accuracy levels; the stream then stands behind them."""
    if not (folder / HIDDEN).is_file():
        return 0, {}
    with safe_open(folder / HIDDEN, "pt") as file:
        state = json.loads(file.metadata()[STATE])
        if state["fingerprint"] != fingerprint:
            return 0, {}
        stream.hidden = file.get_tensor(HIDDEN_STATES)
    return state["layers"], state["levels"]
