"""What an artifact has of the config's: frequencies of its rotary embeddings, and the tables that follow from them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor

from ...artifact import Manifest
from ...models.config import ModelConfig
from ...models.dtypes import PRECISIONS
from ...models.rope import RopeConfig, RotaryEmbedding, inverse_frequencies
from ..report.result import TensorError
from .constants import evaluated
from .folds import ROUNDING
from .stored import ROUNDED, Array

THETAS = (10_000.0, 500_000.0, 1_000_000.0, 5_000_000.0)
"""Bases that checkpoints of these families have, and so are taken for each other."""

ULPS = 4
"""By how many roundings cosines of different machines differ at most."""

FIRST = 16
"""Positions by which a table is recognized."""


def computed(folder: Path, manifest: Manifest, config: ModelConfig, model: ir.Model) -> list[TensorError]:
    """Compare every initializer of a rotary embedding with the one that the config makes; and, where those are right,
    the tables that the graph computes from them for GroupQueryAttention.

    Raises:
        ArtifactError: an initializer reaches beyond its file, or ONNX Runtime cannot compute a table.
    """
    found = _stored(folder, manifest, config, model.graph.initializers)
    # A table of wrong frequencies is wrong as well, which would tell nothing new.
    return found if any(error.fault for error in found) else found + _tables(folder, config, model, found)


def _stored(folder: Path, manifest: Manifest, config: ModelConfig, values: Mapping[str, ir.Value]) -> list[TensorError]:
    found = []
    for name, entry in manifest.tensors.items():
        owner, _, leaf = name.rpartition(".")
        if entry.sources or not owner.endswith("rotary_emb"):
            continue
        array = Array.of(values[name], folder) if name in values else None
        error: float = 1.0
        fault: str | None = "the graph has no such initializer"
        if array is not None:
            stored = array.flat(0, array.elements).view(array.shape)
            error, fault = _compare(stored, leaf, config, ROUNDED.get(array.type, torch.float32))
        found.append(_error(name, entry.precision, entry.shape, error, fault))
    return found


def _tables(folder: Path, config: ModelConfig, model: ir.Model, stored: Sequence[TensorError]) -> list[TensorError]:
    """Of all layers, each table once. What depends on an input is no table: it is judged where attention is."""
    owner = next((error.module for error in stored), "rotary_emb")
    found = []
    for place, leaf in ((7, "cos"), (8, "sin")):
        nodes = [node for node in model.graph if node.op_type == "GroupQueryAttention" and len(node.inputs) > place]
        for value in dict.fromkeys(node.inputs[place] for node in nodes):
            if value is None or value.is_initializer():
                continue
            numbers = evaluated(model, folder, [value])
            if numbers is not None:
                dtype = ROUNDED.get(value.dtype or ir.DataType.FLOAT, torch.float32)
                error, fault = _compare(numbers[0], leaf, config, dtype)
                found.append(_error(f"{owner}.{leaf}", PRECISIONS[dtype], numbers[0].shape, error, fault))
    return found


def _error(name: str, precision: str, shape: Sequence[int], error: float, fault: str | None) -> TensorError:
    return TensorError(
        name=name,
        module=name.rpartition(".")[0],
        precision=precision,
        bits=None,
        block_size=None,
        method=None,
        elements=torch.Size(shape).numel(),
        error=error,
        fault=fault,
    )


def _compare(stored: Tensor, leaf: str, config: ModelConfig, dtype: torch.dtype) -> tuple[float, str | None]:
    """The relative error, and what is wrong."""
    wanted = _wanted(leaf, config.rope, config.head_dim, stored)
    if wanted is None or wanted.shape != stored.shape:
        return 1.0, f"it has the shape {tuple(stored.shape)}, which config.json gives no {leaf}"
    finite = torch.where(stored.isfinite(), stored, 0.0)
    error = ((finite - wanted).square().sum() / wanted.square().sum().clamp(min=1e-30)).sqrt().item()
    if not stored.isfinite().all():
        return error, f"{int((~stored.isfinite()).sum()):,} of its numbers are NaN or infinite"
    scale = wanted.abs() if wanted.dim() == 1 else wanted.abs().max()
    if bool(((stored - wanted).abs() <= ULPS * ROUNDING[dtype] * scale).all()):
        return 0.0, None
    cause = _cause(stored, wanted, leaf, config)
    figures = f"a relative error of {error:.3g}"
    return error, f"{cause or 'its angles of RoPE are not those that config.json gives'}, {figures}"


def _wanted(leaf: str, rope: RopeConfig, head_dim: int, like: Tensor) -> Tensor | None:
    rotary = RotaryEmbedding(rope, head_dim)
    if leaf in ("cos", "sin") and like.dim() == 2 and not rope.length_dependent:
        return rotary.table(like.shape[0])[0 if leaf == "cos" else 1]
    return dict(rotary.named_buffers()).get(leaf)


def _cause(stored: Tensor, wanted: Tensor, leaf: str, config: ModelConfig) -> str | None:
    rope = config.rope
    if not stored.any():
        return f"RoPE's {leaf} is all zeros"
    if leaf in ("cos", "sin"):
        other = "sin" if leaf == "cos" else "cos"
        swapped = _wanted(other, rope, config.head_dim, stored)
        if swapped is not None and _alike(stored, swapped):
            return f"it holds the {other} of each angle of RoPE: cos and sin are exchanged"
        for late in (1, -1):
            ours, theirs = (stored[late:], wanted[:-late]) if late > 0 else (stored[:late], wanted[-late:])
            if len(theirs) and _alike(ours, theirs):
                return f"RoPE turns each position by the angles of the one {'before' if late > 0 else 'after'} it"
    for changed, words in _alternatives(rope):
        table = _wanted(leaf, changed, config.head_dim, stored)
        if table is not None and table.shape == stored.shape and _alike(stored, table):
            return words
    if stored.dim() == 2 and (right := int(((stored - wanted).abs().amax(1) < 1e-3).int().cumprod(0).sum())) > FIRST:
        return f"RoPE's angles are right up to position {right - 1:,}, and wrong from there on"
    if (base := _base(stored, config.head_dim, leaf)) is not None and base != rope.theta:
        # The first positions: what theta is taken for is rounded, and far out that is magnified.
        near = slice(FIRST) if stored.dim() == 2 else slice(None)
        table = _wanted(leaf, replace(rope, type="default", theta=base), config.head_dim, stored)
        if table is not None and table.shape == stored.shape and _alike(stored[near], table[near]):
            return f"RoPE has a theta of {base:,.10g}, and config.json has {rope.theta:,.10g} and the type {rope.type}"
    factor = ((stored * wanted).sum() / wanted.square().sum()).item()
    if _alike(stored, factor * wanted):
        own = inverse_frequencies(rope, config.head_dim)[2]
        return f"it is {factor:.6g} times what it should be (an attention factor of {own:g} is in that)"
    return None


def _alternatives(rope: RopeConfig) -> list[tuple[RopeConfig, str]]:
    """Other configs that the numbers may be of."""
    found: list[tuple[RopeConfig, str]] = []
    plain = replace(rope, type="default")
    if rope.type != "default":
        found.append((plain, f"RoPE is of the default type, and config.json has {rope.type}"))
    bases = [theta for theta in THETAS if theta != rope.theta]
    for base in bases:
        words = f"RoPE has a theta of {base:,.10g}, and config.json has {rope.theta:,.10g}"
        found.append((replace(rope, theta=base), words))
        if rope.type != "default":
            found.append((replace(plain, theta=base), f"{words}; its type is the default, not {rope.type}"))
    if rope.factor != 1:
        words = f"RoPE is of the linear type, and config.json has {rope.type}"
        found.append((replace(rope, type="linear"), words))
    return found


def _base(stored: Tensor, head_dim: int, leaf: str) -> float | None:
    """The theta of plain frequencies, to as many digits as the numbers give away."""
    if head_dim < 4 or (stored.dim() == 2 and len(stored) < 2):
        return None
    row = stored if stored.dim() == 1 else stored[1]
    second = row[1].double()
    angle = {"cos": torch.acos, "sin": torch.asin}.get(leaf, torch.clone)(second.clamp(-1, 1)).item()
    if not 0 < angle < 1:
        return None
    base = angle ** (-head_dim / 2)
    return float(f"{base:.3g}")


def _alike(ours: Tensor, theirs: Tensor) -> bool:
    power = theirs.square().sum().item()
    return power > 0 and (ours - theirs).square().sum().item() < 1e-4 * power
