"""The source's run through a scenario, layer by layer, with the activations at every tap."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...models import ops
from ...models.loading.layerwise import Layerwise
from ...models.ops import KeyValue
from ...models.rope import RotaryEmbedding
from .scenarios import Scenario
from .taps import Tap


@dataclass(frozen=True, eq=False)
class LayerRun:
    """The source's run of one layer.

    Args:
        plan: what the layers share: positions, mask and RoPE's angles.
        hidden: the layer's input [B, S, D].
        activations: [B, S, ...] by the key of the tap.
        past: the layer's KV cache before the run, present: after it; [B, K, T, E] each.
    """

    scenario: Scenario
    plan: Any
    hidden: Tensor
    activations: Mapping[str, Tensor]
    past: KeyValue | None = None
    present: KeyValue | None = None


class SourceRun:
    """A scenario on its way through the source's layers.

    Attributes:
        hidden: the hidden state of the new tokens [B, S, D], after the layers that have run.
    """

    def __init__(
        self, scenario: Scenario, rotary: RotaryEmbedding, past_hidden: Tensor, hidden: Tensor, *, causal: bool = True
    ) -> None:
        """
        Args:
            past_hidden: the embeddings of the cached tokens [B, P, D].
            hidden: the embeddings of the new tokens [B, S, D].
        """
        self.scenario = scenario
        self.hidden = hidden
        self.plan = ops.plan(scenario.ids, scenario.mask, scenario.past_length, rotary, causal=causal)
        self._past_hidden = past_hidden
        past_mask = scenario.mask[:, : scenario.past_length]
        self._past_plan = ops.plan(scenario.past_ids, past_mask, 0, rotary) if scenario.past_length else None

    @classmethod
    def start(cls, scenario: Scenario, source: Layerwise, rotary: RotaryEmbedding) -> "SourceRun":
        past = source.embed(scenario.past_ids) if scenario.past_length else torch.empty(0)
        return cls(scenario, rotary, past, source.embed(scenario.ids), causal=source.config.causal)

    def advance(self, layer: nn.Module, taps: tuple[Tap, ...]) -> LayerRun:
        """Run the next layer and return its activations."""
        past = None
        hidden = self.hidden
        if self.scenario.past_length:
            self._past_hidden, past = layer(self._past_hidden, None, self._past_plan)
        with ActivationRecorder(layer, taps) as recorder:
            self.hidden, present = layer(self.hidden, past, self.plan)
        return LayerRun(self.scenario, self.plan, hidden, recorder.activations, past, present)


class ActivationRecorder:
    """``with ActivationRecorder(layer, taps) as recorder:`` records the activations of the taps while a layer runs."""

    def __init__(self, layer: nn.Module, taps: tuple[Tap, ...]) -> None:
        self.activations: dict[str, Tensor] = {}
        self._handles = [self._attach(layer.get_submodule(tap.hook[1]), tap.key, tap.hook[0]) for tap in taps]

    def _attach(self, module: nn.Module, key: str, side: str) -> Any:
        def record_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.activations[key] = inputs[0]

        def record_output(module: nn.Module, inputs: object, output: Any) -> None:
            self.activations[key] = output[0] if isinstance(output, tuple) else output

        if side == "input":
            return module.register_forward_pre_hook(record_input)
        return module.register_forward_hook(record_output)

    def __enter__(self) -> "ActivationRecorder":
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
