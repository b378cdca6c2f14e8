"""A layer of a tiny checkpoint, which a test changes and lets ``diagnose`` explain."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from intaglio.models import ops
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.config import ModelConfig
from intaglio.models.family import FAMILIES
from intaglio.models.loading.layerwise import Layerwise
from intaglio.models.rope import RotaryEmbedding
from intaglio.parity.locate.budgets import relative_error
from intaglio.parity.locate.folded_scales import FoldedScales
from intaglio.parity.locate.hypotheses.mismatch import Cause, Mismatch
from intaglio.parity.locate.hypotheses.operators import diagnose
from intaglio.parity.locate.scenarios import Scenario
from intaglio.parity.locate.source_run import ActivationRecorder, LayerRun, SourceRun
from intaglio.parity.locate.taps import taps_of
from intaglio.tests import tiny
from torch import Tensor, nn

BUDGET = 2e-5
SIZE = 24


@dataclass(frozen=True)
class SourceLayer:
    """A layer of the source and its run; ``hidden`` is the layer's input."""

    source: Layerwise
    index: int
    layer: nn.Module
    hidden: Tensor
    layer_run: LayerRun

    @property
    def config(self) -> ModelConfig:
        return self.source.config

    @property
    def activations(self) -> Mapping[str, Tensor]:
        return self.layer_run.activations

    def weight(self, key: str) -> Tensor:
        return self.layer.get_submodule(key).get_parameter("weight")

    def run_with(
        self, config: ModelConfig | None = None, change: Callable[[nn.Module], None] | None = None
    ) -> LayerRun:
        """Run the layer with another config, or after a change to it, on the same input and cache."""
        config, scenario = config or self.config, self.layer_run.scenario
        layer = FAMILIES[config.family].trunk.layer(config, self.index)
        layer.load_state_dict(self.layer.state_dict())
        layer.requires_grad_(False)
        if change is not None:
            change(layer)
        rotary = RotaryEmbedding(config.rope, config.head_dim)
        plan = ops.plan(scenario.ids, scenario.mask, scenario.past_length, rotary)
        with ActivationRecorder(layer, taps_of(FAMILIES[config.family])) as recorder:
            layer(self.hidden, self.layer_run.past, plan)
        return replace(self.layer_run, plan=plan, activations=recorder.activations)

    def diagnose(self, key: str, actual: Tensor) -> Cause:
        """Return the cause that is found if an artifact computes ``actual`` at a tap."""
        tap = next(tap for tap in taps_of(FAMILIES[self.config.family]) if tap.key == key)
        expected = self.activations[key]
        prefix = self.source.checkpoint.trunk_prefix
        mismatch = Mismatch(
            self.config,
            self.index,
            tap,
            self.layer.get_submodule(tap.module),
            self.layer_run,
            expected,
            actual,
            relative_error(expected, actual),
            BUDGET,
            FoldedScales(FAMILIES[self.config.family]),
            lambda layer: self.source.checkpoint.tensor(f"{prefix}layers.{layer}.{key}.weight"),
            lambda layer: f"model.layers.{layer}.{key}",
        )
        return diagnose(mismatch)

    def cause(self, key: str, actual: Tensor) -> str:
        return self.diagnose(key, actual).text


def source_layer(
    folder: Path,
    family: str,
    *,
    index: int = 0,
    past: int = 0,
    rope: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] = MappingProxyType({}),
) -> SourceLayer:
    """Write a checkpoint and run one of its layers on SIZE random tokens, the first ``past`` of them cached."""
    checkpoint = tiny.write(folder / "source", tiny.config(family, rope=rope, **changes))
    source = Layerwise(Checkpoint(checkpoint))
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 288, (1, SIZE), generator=generator)
    scenario = Scenario("test", "a test", ids[:, :past], ids[:, past:], torch.ones_like(ids))
    hidden = torch.randn(1, SIZE, 64, generator=generator)
    rotary = RotaryEmbedding(source.config.rope, source.config.head_dim)
    layer = source.layer(index)
    layer_run = SourceRun(scenario, rotary, hidden[:, :past], hidden[:, past:]).advance(
        layer, taps_of(FAMILIES[family])
    )
    return SourceLayer(source, index, layer, hidden[:, past:], layer_run)
