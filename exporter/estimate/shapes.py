"""The shapes that a quantization's time and memory follow from."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn

from ...models.config import ModelConfig
from ...models.family import FAMILIES

STAGES = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
"""The projections of a layer that share their input, in the order in which they run."""

ATTENTION = 1
"""The last stage of attention."""


@dataclass(frozen=True)
class Projection:
    """A projection [N, K] of a layer.

    Args:
        name: its path inside the layer.
        stage: its index in ``STAGES``.
        share: the share of the tokens that it multiplies: below 1 for an expert.
    """

    name: str
    rows: int
    columns: int
    stage: int
    share: float

    @property
    def expert(self) -> bool:
        return ".experts." in self.name

    @property
    def size(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True)
class Layer:
    """A layer: the index of one, how many there are of its kind, its projections, and all of its weights."""

    index: int
    count: int
    projections: tuple[Projection, ...]
    weights: int

    @property
    def stages(self) -> list[int]:
        """The stages outside experts."""
        return sorted({one.stage for one in self.projections if not one.expert})

    @property
    def routed(self) -> int:
        """The number of passes that the experts need: one for gate and up, and one for down."""
        return len({one.stage for one in self.projections if one.expert})

    def passes(self, one: Projection) -> int:
        """Return how often one stream of GPTQ runs a projection: for each stage after it, and for the layer's output.

        What is before o is computed once, and kept. A mixture computes its experts before the expert that all tokens
        share.
        """
        return 1 if one.stage == 0 else self._later(one) + self.routed + 1

    def float_passes(self, one: Projection) -> int:
        """Return the same of the float stream, which reaches the layer's output with the inputs of the last stage."""
        return 1 if one.stage == 0 else max(1, self._later(one))

    def _later(self, one: Projection) -> int:
        before = ATTENTION if one.expert else one.stage
        return sum(stage > before for stage in self.stages)


def layers(config: ModelConfig) -> list[Layer]:
    """Return a layer of each kind; layers that differ in their window alone cost the same."""
    found: dict[tuple[Projection, ...], tuple[int, int]] = {}
    counts: Counter[tuple[Projection, ...]] = Counter()
    seen: dict[object, tuple[Projection, ...]] = {}
    for index in range(config.num_hidden_layers):
        kind = config.layer_kind(index)
        if kind not in seen:
            with torch.device("meta"):
                layer = FAMILIES[config.family].trunk.layer(config, index)
            seen[kind] = _projections(layer, config)
            found.setdefault(seen[kind], (index, sum(value.numel() for value in layer.state_dict().values())))
        counts[seen[kind]] += 1
    return [Layer(index, counts[key], key, weights) for key, (index, weights) in found.items()]


def _projections(layer: nn.Module, config: ModelConfig) -> tuple[Projection, ...]:
    found = []
    for name, module in layer.named_modules():
        stage = next((i for i, names in enumerate(STAGES) if name.endswith(names)), None)
        if isinstance(module, nn.Linear) and stage is not None:
            share = 1.0
            if ".experts." in name:
                assert config.experts is not None
                share = config.experts.per_token / config.experts.count
            rows, columns = module.weight.shape
            found.append(Projection(name, rows, columns, stage, share))
    return tuple(found)
