"""The error of the hidden state after each layer, when the artifact runs on its own activations."""

from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor

from ...artifact import Manifest
from ...models.loading.layerwise import Layerwise
from ..report.result import LayerError
from .artifact_graph import ArtifactGraph
from .budgets import relative_error
from .graph_inputs import prompt_inputs
from .taps import OUT


def layer_errors(
    folder: Path,
    manifest: Manifest,
    source: Layerwise,
    tokens: Tensor,
    *,
    threads: int | None = None,
) -> tuple[LayerError, ...]:
    """Return the errors of the hidden state after the embedding, each layer and the final norm.

    Each layer of the artifact takes the output of the artifact's layer before it. One layer is in memory at a time.

    Args:
        tokens: int64 [B, S], without padding.
        threads: threads of one operator; None for every processor this process may use.

    Returns:
        the errors in the order of execution; none where the CPU cannot compute in the artifact's precision (bfloat16).

    Raises:
        ArtifactError: the graph cannot be read or run.
    """
    if manifest.model.cache_dtype == "bfloat16":
        return ()
    artifact = ArtifactGraph(folder, manifest, source.config, threads)
    tap_map, inputs = artifact.tap_map, prompt_inputs(manifest, tokens)
    taps = {f"{tap_map.trunk}embed_tokens": tap_map.embedding}
    taps |= {tap_map.path(index): layer.get(OUT) for index, layer in enumerate(tap_map.layers)}
    taps[f"{tap_map.trunk}norm"] = tap_map.norm
    errors = []
    previous: dict[ir.Value, Tensor] = {}
    with torch.inference_mode():
        expected, plan = source.embed(tokens), source.plan(*tokens.shape)
        for index, (module, tap) in enumerate(taps.items()):
            if 0 < index <= len(tap_map.layers):
                expected, _ = source.layer(index - 1)(expected, None, plan)
            elif index:
                expected = source.norm(expected)
            if tap is not None:
                actual = artifact.subgraph([tap.value], list(previous)).run(inputs, previous, [tap.value])[0]
                previous = {tap.value: actual}
                errors.append(LayerError(module, relative_error(expected, actual)))
    return tuple(errors)
