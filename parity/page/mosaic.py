"""The picture of the quantized weights: a row for each layer, a column for each projection, coloured by error."""

from collections.abc import Sequence

from ..report.result import TensorError
from .numerals import number
from .paths import kind_of, layer_of, rank, short
from .plots import Axis, level, picture
from .visible import escaped

ROW, HEAD, GAP = 21, 24, 8
LABEL, BARS = 7.5, 13.0
"""Percent of the width for the layers' numbers, and for the bars of the estimated KL divergence."""
OUTLINED = 5
"""Number of outlined tensors, those with the largest estimated KL divergence."""


def mosaic(tensors: Sequence[TensorError]) -> str | None:
    """Return the picture, or None if no weight is quantized."""
    shown = matrices(tensors)
    if not shown:
        return None
    axis = shades(shown)
    layered = {(layer, kind_of(t.module)): t for t in shown if (layer := layer_of(t.module)) is not None}
    apart = [t for t in shown if layer_of(t.module) is None]
    kinds = sorted({kind for _, kind in layered}, key=rank)
    layers = sorted({layer for layer, _ in layered})
    outlined = set(map(id, worst(shown, OUTLINED)))
    bars = {
        layer: sum(layered[layer, kind].kl_estimate or 0 for kind in kinds if (layer, kind) in layered)
        for layer in layers
    }
    most = max(bars.values(), default=0)
    wide = (100 - LABEL - (BARS if most else 0)) / max(len(kinds), 1)
    across = 100 - LABEL - (BARS if most else 0)
    parts, y = [], 0
    for tensor in apart:
        if kind_of(tensor.module) == "embed_tokens":
            parts.append(_cell(tensor, LABEL, y, across, axis, id(tensor) in outlined, words=True))
            y += ROW + GAP
    if layers:
        for column, kind in enumerate(kinds):
            parts.append(_text(LABEL + (column + 0.5) * wide, y + 16, kind.removesuffix("_proj")))
        if most:
            parts.append(_text(LABEL + across + BARS / 2, y + 16, "est. KL"))
        y += HEAD
    for layer in layers:
        parts.append(_text(LABEL - 1.2, y + 14, str(layer), "end"))
        for column, kind in enumerate(kinds):
            if tensor_ := layered.get((layer, kind)):
                parts.append(_cell(tensor_, LABEL + column * wide, y, wide, axis, id(tensor_) in outlined))
        if most:
            title = escaped(f"layer {layer}: {number(bars[layer])} nats")
            left, bar = LABEL + across + 0.8, bars[layer] / most * (BARS - 0.8)
            place = f'x="{left:.2f}%" width="{bar:.2f}%" y="{y + 6}" height="{ROW - 13}"'
            parts.append(f'<rect class="bar" {place}><title>{title}</title></rect>')
        y += ROW
    for tensor in apart:
        if kind_of(tensor.module) != "embed_tokens":
            y += GAP
            parts.append(_cell(tensor, LABEL, y, across, axis, id(tensor) in outlined, words=True))
            y += ROW
    about = (
        f"{len(shown)} weights of {len(layers)} layers; relative errors from {number(axis.low)} to {number(axis.high)}."
    )
    return picture("mosaic", "Quantization error by tensor", about, y + 2, "".join(parts))


def matrices(tensors: Sequence[TensorError]) -> list[TensorError]:
    """Return the quantized weights and the float weights of the same projections; [] if no weight is quantized."""
    kinds = {kind_of(tensor.module) for tensor in tensors if tensor.bits}
    widest: dict[str, TensorError] = {}
    for tensor in tensors:
        before = widest.get(tensor.module)
        if kind_of(tensor.module) in kinds and (before is None or before.elements < tensor.elements):
            widest[tensor.module] = tensor
    return list(widest.values())


def shades(tensors: Sequence[TensorError]) -> Axis:
    """Return the scale of the colours: from 0 to the largest error of a weight without a fault."""
    sound = [tensor.error for tensor in tensors if not tensor.fault]
    return Axis(0.0, max(sound or [tensor.error for tensor in tensors], default=0.0) or 1.0)


def worst(tensors: Sequence[TensorError], count: int) -> list[TensorError]:
    """Return the tensors with the largest estimated KL divergence, or the largest error if there is no estimate."""
    measured = any(tensor.kl_estimate for tensor in tensors)
    quantized = [tensor for tensor in tensors if tensor.error > 0 or tensor.kl_estimate]
    return sorted(quantized, key=lambda t: -((t.kl_estimate or 0) if measured else t.error))[:count]


def form(tensor: TensorError) -> str:
    """Return bits and block size, ``4/32``, or the name of the float type."""
    return f"{tensor.bits}/{tensor.block_size}" if tensor.bits else tensor.precision


def description(tensor: TensorError) -> str:
    """Return the facts of a weight in one line."""
    method = f", {tensor.method}" if tensor.method else ""
    blocks = f" in blocks of {tensor.block_size}" if tensor.block_size else ""
    parts = [f"{tensor.module}: {tensor.precision}{blocks}{method}; error {number(tensor.error)}"]
    if tensor.kl_estimate is not None:
        parts.append(f"estimated KL {number(tensor.kl_estimate)} nats")
    if tensor.worst_block is not None:
        row = "" if tensor.worst_row is None else f" in row {tensor.worst_row:,}"
        parts.append(f"worst block {number(tensor.worst_block)}{row}")
    return "; ".join([*parts, tensor.fault] if tensor.fault else parts)


def _cell(
    tensor: TensorError, x: float, y: float, wide: float, axis: Axis, outlined: bool, *, words: bool = False
) -> str:
    shade = level(axis.share(tensor.error)) if tensor.error > 0 else 0
    text = f"{short(tensor.module)} · {form(tensor)} · {number(tensor.error)}" if words else form(tensor)
    text = f"✕ {text}" if tensor.fault else text
    place = f'x="{x + 0.15:.2f}%" y="{y + 1}" width="{wide - 0.3:.2f}%" height="{ROW - 2}"'
    middle = f'x="{x + wide / 2:.2f}%" y="{y + 14}"'
    label = f'<text class="on{shade}" text-anchor="middle" {middle}>{escaped(text)}</text>'
    edge = ""
    if outlined or tensor.fault:
        kind = "outlined faulty" if tensor.fault else "outlined"
        edge = f'<rect class="halo" {place}/><rect class="{kind}" {place}/>'
    return f'<g><title>{escaped(description(tensor))}</title><rect class="h{shade}" {place}/>{edge}{label}</g>'


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text class="tick" text-anchor="{anchor}" x="{x:.2f}%" y="{y}">{escaped(text)}</text>'
