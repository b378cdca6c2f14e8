"""The scales that AWQ or SmoothQuant folded into a layer, without which its activations are not the source's.

Such a method divides the channels of one operator by scales and multiplies the columns of the next operator's weight
by the same: the layer's output stays, and the activations between the two change.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...artifact import Manifest
from ...models.family import Family
from ..audit.folds import FOLDING_METHODS
from .source_run import LayerRun
from .taps import HIDDEN

SCALED_TAPS = ("self_attn.v_proj", "self_attn", "mlp.up_proj", "mlp")
"""Taps whose channels such a method may have scaled, besides the norms that only projections read."""


@dataclass(frozen=True, eq=False)
class FoldedScales:
    """The scales of a layer, one for each channel, by the key of the tap."""

    family: Family
    by_tap: dict[str, Tensor] = field(default_factory=dict)

    def of(self, key: str) -> Tensor:
        """Return the scales of a tap's channels, or 1."""
        return self.by_tap.get(key, torch.ones(()))

    def activation(self, key: str, layer_run: LayerRun) -> Tensor:
        """Return the source's activation at a tap, scaled as the artifact's."""
        value = layer_run.hidden if key == HIDDEN else layer_run.activations[key]
        return value * self.by_tap[key] if key in self.by_tap else value

    def fit(self, outputs: Mapping[str, Tensor], layer_run: LayerRun) -> None:
        """Fit each channel's scale to the artifact's ``outputs``, by least squares."""
        mask = layer_run.scenario.unpadded
        mixes = "mlp.up_proj" not in layer_run.activations  # then "mlp" adds to the residual stream, and has no scales
        for key in (*self.family.feeding_norms, *SCALED_TAPS):
            if key == "mlp" and mixes:
                continue
            if key in outputs and outputs[key].shape == layer_run.activations[key].shape:
                source, artifact = layer_run.activations[key][mask].double(), outputs[key][mask].double()
                squares = source.square().sum(0)
                scales = (source * artifact).sum(0) / squares.clamp(min=1e-30)
                self.by_tap[key] = torch.where((squares > 0) & scales.isfinite(), scales, 1.0).float()

    def apply_to_cache(self, layer_run: LayerRun, head_dim: int) -> LayerRun:
        """Return the run with its cached values scaled as the artifact's."""
        if "self_attn.v_proj" not in self.by_tap:
            return layer_run
        heads = self.by_tap["self_attn.v_proj"].view(-1, 1, head_dim)
        past, present = (
            (pair[0], pair[1] * heads) if pair is not None else None for pair in (layer_run.past, layer_run.present)
        )
        return replace(layer_run, past=past, present=present)


def may_be_folded(names: Iterable[str], manifest: Manifest) -> bool:
    """Check whether one of these stored tensors was quantized by a method that folds scales."""
    quantizations = (manifest.tensors[name].quantization for name in names)
    return any(quantization is not None and quantization.method in FOLDING_METHODS for quantization in quantizations)
