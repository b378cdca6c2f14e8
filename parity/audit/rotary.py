"""RoPE's tensors, which follow from config.json: the frequencies, and the tables of cos and sin computed from them."""

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
from .evaluation import evaluate
from .folds import EPSILON
from .reading.stored import ROUNDED, StoredArray

THETAS = (10_000.0, 500_000.0, 1_000_000.0, 5_000_000.0)
"""The thetas of checkpoints of these families, which may be mistaken for each other."""

ULPS = 4
"""The difference of cosines between machines, in units in the last place."""

FIRST = 16
"""The positions that a table is recognized by."""


def check_rotary(path: Path, manifest: Manifest, config: ModelConfig, model: ir.Model) -> list[TensorError]:
    """Compare the initializers of RoPE with those that config.json gives.

    If they are right, the tables that the graph computes from them for GroupQueryAttention are compared as well.

    Raises:
        ArtifactError: an initializer extends beyond its file, or ONNX Runtime cannot compute a table.
    """
    found = _check_initializers(path.parent, manifest, config, model.graph.initializers)
    # Wrong frequencies make wrong tables, which would say nothing more.
    return found if any(error.fault for error in found) else found + _check_tables(path, config, model, found)


def _check_initializers(
    folder: Path, manifest: Manifest, config: ModelConfig, values: Mapping[str, ir.Value]
) -> list[TensorError]:
    found = []
    for name, entry in manifest.tensors.items():
        owner, _, leaf = name.rpartition(".")
        if entry.sources or not owner.endswith("rotary_emb"):
            continue
        array = StoredArray.of(values[name], folder) if name in values else None
        error: float = 1.0
        fault: str | None = "the graph has no such initializer"
        if array is not None:
            stored = array.read(0, array.elements).view(array.shape)
            error, fault = _compare(stored, leaf, config, ROUNDED.get(array.type, torch.float32))
        found.append(_tensor_error(name, entry.precision, entry.shape, error, fault))
    return found


def _check_tables(path: Path, config: ModelConfig, model: ir.Model, stored: Sequence[TensorError]) -> list[TensorError]:
    """Check each table once for all layers; angles that depend on an input are checked with attention."""
    owner = next((error.module for error in stored), "rotary_emb")
    found = []
    for index, leaf in ((7, "cos"), (8, "sin")):
        nodes = [node for node in model.graph if node.op_type == "GroupQueryAttention" and len(node.inputs) > index]
        for value in dict.fromkeys(node.inputs[index] for node in nodes):
            if value is None or value.is_initializer():
                continue
            tables = evaluate(model, path, [value])
            if tables is not None:
                dtype = ROUNDED.get(value.dtype or ir.DataType.FLOAT, torch.float32)
                error, fault = _compare(tables[0], leaf, config, dtype)
                found.append(_tensor_error(f"{owner}.{leaf}", PRECISIONS[dtype], tables[0].shape, error, fault))
    return found


def _tensor_error(name: str, precision: str, shape: Sequence[int], error: float, fault: str | None) -> TensorError:
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
    """Return the relative error and the fault."""
    expected = _expected(leaf, config.rope, config.head_dim, stored)
    if expected is None or expected.shape != stored.shape:
        return 1.0, f"it has the shape {tuple(stored.shape)}, and config.json gives no {leaf} of that shape"
    finite = torch.where(stored.isfinite(), stored, 0.0)
    error = ((finite - expected).square().sum() / expected.square().sum().clamp(min=1e-30)).sqrt().item()
    if not stored.isfinite().all():
        return error, f"{int((~stored.isfinite()).sum()):,} of its numbers are NaN or infinite"
    scale = expected.abs() if expected.dim() == 1 else expected.abs().max()
    if bool(((stored - expected).abs() <= ULPS * EPSILON[dtype] * scale).all()):
        return 0.0, None
    cause = _cause(stored, expected, leaf, config)
    evidence = f"a relative error of {error:.3g}"
    return error, f"{cause or 'its angles of RoPE are not those that config.json gives'}, {evidence}"


def _expected(leaf: str, rope: RopeConfig, head_dim: int, like: Tensor) -> Tensor | None:
    rotary = RotaryEmbedding(rope, head_dim)
    if leaf in ("cos", "sin") and like.dim() == 2 and not rope.length_dependent:
        return rotary.table(like.shape[0])[0 if leaf == "cos" else 1]
    return dict(rotary.named_buffers()).get(leaf)


def _cause(stored: Tensor, expected: Tensor, leaf: str, config: ModelConfig) -> str | None:
    rope = config.rope
    if not stored.any():
        return f"RoPE's {leaf} is all zeros"
    if leaf in ("cos", "sin"):
        other = "sin" if leaf == "cos" else "cos"
        swapped = _expected(other, rope, config.head_dim, stored)
        if swapped is not None and _alike(stored, swapped):
            return f"it holds the {other} of RoPE's angles: cos and sin are swapped"
        for late in (1, -1):
            ours, theirs = (stored[late:], expected[:-late]) if late > 0 else (stored[:late], expected[-late:])
            if len(theirs) and _alike(ours, theirs):
                return f"RoPE rotates each position by the angles of the {'previous' if late > 0 else 'next'} one"
    for changed, text in _other_configs(rope):
        table = _expected(leaf, changed, config.head_dim, stored)
        if table is not None and table.shape == stored.shape and _alike(stored, table):
            return text
    if stored.dim() == 2:
        correct = int(((stored - expected).abs().amax(1) < 1e-3).int().cumprod(0).sum())
        if correct > FIRST:
            return f"RoPE's angles are correct up to position {correct - 1:,}, and wrong from there on"
    if (theta := _theta_of(stored, config.head_dim, leaf)) is not None and theta != rope.theta:
        # The theta read from the numbers is rounded, and far positions magnify the difference.
        near = slice(FIRST) if stored.dim() == 2 else slice(None)
        table = _expected(leaf, replace(rope, type="default", theta=theta), config.head_dim, stored)
        if table is not None and table.shape == stored.shape and _alike(stored[near], table[near]):
            return f"RoPE has a theta of {theta:,.10g}, and config.json has {rope.theta:,.10g} and the type {rope.type}"
    factor = ((stored * expected).sum() / expected.square().sum()).item()
    if _alike(stored, factor * expected):
        own = inverse_frequencies(rope, config.head_dim)[2]
        return f"it is {factor:.6g} times the expected one (which has an attention factor of {own:g})"
    return None


def _other_configs(rope: RopeConfig) -> list[tuple[RopeConfig, str]]:
    """Return configs that the numbers may be of by mistake, each with its description."""
    found: list[tuple[RopeConfig, str]] = []
    default = replace(rope, type="default")
    if rope.type != "default":
        found.append((default, f"RoPE is of the default type, and config.json has {rope.type}"))
    for theta in (theta for theta in THETAS if theta != rope.theta):
        text = f"RoPE has a theta of {theta:,.10g}, and config.json has {rope.theta:,.10g}"
        found.append((replace(rope, theta=theta), text))
        if rope.type != "default":
            found.append((replace(default, theta=theta), f"{text}; its type is the default, not {rope.type}"))
    if rope.factor != 1:
        text = f"RoPE is of the linear type, and config.json has {rope.type}"
        found.append((replace(rope, type="linear"), text))
    return found


def _theta_of(stored: Tensor, head_dim: int, leaf: str) -> float | None:
    """Return the theta of default frequencies, to three digits; None where the numbers do not show it."""
    if head_dim < 4 or (stored.dim() == 2 and len(stored) < 2):
        return None
    row = stored if stored.dim() == 1 else stored[1]
    second = row[1].double()
    angle = {"cos": torch.acos, "sin": torch.asin}.get(leaf, torch.clone)(second.clamp(-1, 1)).item()
    if not 0 < angle < 1:
        return None
    theta = angle ** (-head_dim / 2)
    return float(f"{theta:.3g}")


def _alike(actual: Tensor, expected: Tensor) -> bool:
    squares = expected.square().sum().item()
    return squares > 0 and (actual - expected).square().sum().item() < 1e-4 * squares
