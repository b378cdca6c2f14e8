"""The taps of a layer: the points at which its activations are compared.

A tap is the output of a module or of an operator in the native definition.
"""

from dataclasses import dataclass
from typing import Literal

from ...models.family import GATE_UP, QKV, Family

Kind = Literal["norm", "projection", "attention", "activation", "mixture", "residual"]
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


def _mlp(hidden: str, mixes: bool) -> tuple[Tap, ...]:
    if mixes:
        return (_module("mixture", "mlp", hidden),)
    return (
        *(_module("projection", name, hidden) for name in GATE_UP),
        Tap("mlp", GATE_UP, "activation", ("input", "mlp.down_proj")),
        _module("projection", "mlp.down_proj", "mlp"),
    )


def _attention(hidden: str, head_norms: bool) -> tuple[Tap, ...]:
    query, key, value = QKV
    norms: tuple[Tap, ...] = ()
    if head_norms:
        norms = (_module("norm", "self_attn.q_norm", query), _module("norm", "self_attn.k_norm", key))
        query, key = "self_attn.q_norm", "self_attn.k_norm"
    return (
        *(_module("projection", name, hidden) for name in QKV),
        *norms,
        Tap("self_attn", (query, key, value), "attention", ("input", "self_attn.o_proj")),
        _module("projection", "self_attn.o_proj", "self_attn"),
    )


def _norm(name: str | None, input_key: str) -> tuple[Tap, ...]:
    return () if name is None else (_module("norm", name, input_key),)


def taps_of(family: Family, *, mixes: bool = False) -> tuple[Tap, ...]:
    """Return the taps of a family's layer in the order of execution.

    Args:
        mixes: the layer's MLP is a mixture of experts.
    """
    attention_output = family.norm_after_attention or "self_attn.o_proj"
    last = "mlp" if mixes else "mlp.down_proj"
    mlp_output = family.norm_after_mlp or last
    reader_of_middle = family.norm_before_mlp or ("mlp" if mixes else GATE_UP[0])
    return (
        *_norm(family.norm_before_attention, HIDDEN),
        *_attention(family.norm_before_attention or HIDDEN, family.head_norms),
        *_norm(family.norm_after_attention, "self_attn.o_proj"),
        Tap(MIDDLE, (HIDDEN, attention_output), "residual", ("input", reader_of_middle)),
        *_norm(family.norm_before_mlp, MIDDLE),
        *_mlp(family.norm_before_mlp or MIDDLE, mixes),
        *_norm(family.norm_after_mlp, last),
        Tap(OUT, (MIDDLE, mlp_output), "residual", ("output", "")),
    )


def residual_sums(family: Family) -> dict[str, str]:
    """Return the key of the residual sum that adds each module's output, by the module's path."""
    attention = dict.fromkeys(("self_attn", "self_attn.o_proj", family.norm_after_attention), MIDDLE)
    mlp = dict.fromkeys(("mlp", "mlp.down_proj", family.norm_after_mlp), OUT)
    return {name: key for name, key in (attention | mlp).items() if name is not None}
