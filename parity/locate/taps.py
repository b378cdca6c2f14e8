"""The taps of a layer: the points at which its activations are compared, for each family.

A tap is the output of a module or of an operator in the native definition.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["norm", "projection", "attention", "activation", "residual"]
HIDDEN, MIDDLE, OUT = "hidden", "middle", "out"
"""Keys of the residual stream: before a layer, after its attention, and after the layer."""


@dataclass(frozen=True)
class Tap:
    """A point of a layer.

    Args:
        key: a module's path inside the layer, or MIDDLE or OUT.
        inputs: keys of the activations that it is computed from.
        hook: where a forward hook sees the activation: the output or the input of a module of the layer.
    """

    key: str
    inputs: tuple[str, ...]
    kind: Kind
    hook: tuple[Literal["output", "input"], str]

    @property
    def module(self) -> str:
        """The module's path inside the layer; empty for the layer itself."""
        return "" if self.key in (MIDDLE, OUT) else self.key


def _module(kind: Kind, key: str, *inputs: str) -> Tap:
    return Tap(key, inputs, kind, ("output", key))


def _mlp(hidden: str) -> tuple[Tap, ...]:
    return (
        _module("projection", "mlp.gate_proj", hidden),
        _module("projection", "mlp.up_proj", hidden),
        Tap("mlp", ("mlp.gate_proj", "mlp.up_proj"), "activation", ("input", "mlp.down_proj")),
        _module("projection", "mlp.down_proj", "mlp"),
    )


def _attention(hidden: str, query: str, key: str) -> tuple[Tap, ...]:
    projections = tuple(_module("projection", f"self_attn.{name}_proj", hidden) for name in "qkv")
    norms = tuple(
        _module("norm", f"self_attn.{name}_norm", f"self_attn.{name}_proj")
        for name, used in (("q", query), ("k", key))
        if used.endswith("norm")
    )
    inputs = (f"self_attn.{query}", f"self_attn.{key}", "self_attn.v_proj")
    return (
        *projections,
        *norms,
        Tap("self_attn", inputs, "attention", ("input", "self_attn.o_proj")),
        _module("projection", "self_attn.o_proj", "self_attn"),
    )


TAPS: Mapping[str, tuple[Tap, ...]] = {
    "qwen2": (
        _module("norm", "input_layernorm", HIDDEN),
        *_attention("input_layernorm", "q_proj", "k_proj"),
        Tap(MIDDLE, (HIDDEN, "self_attn.o_proj"), "residual", ("input", "post_attention_layernorm")),
        _module("norm", "post_attention_layernorm", MIDDLE),
        *_mlp("post_attention_layernorm"),
        Tap(OUT, (MIDDLE, "mlp.down_proj"), "residual", ("output", "")),
    ),
    "exaone4": (
        *_attention(HIDDEN, "q_norm", "k_norm"),
        _module("norm", "post_attention_layernorm", "self_attn.o_proj"),
        Tap(MIDDLE, (HIDDEN, "post_attention_layernorm"), "residual", ("input", "mlp.gate_proj")),
        *_mlp(MIDDLE),
        _module("norm", "post_feedforward_layernorm", "mlp.down_proj"),
        Tap(OUT, (MIDDLE, "post_feedforward_layernorm"), "residual", ("output", "")),
    ),
}
"""The taps of a layer by family, in the order of execution."""
