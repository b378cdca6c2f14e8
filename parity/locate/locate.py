"""Find the operators of an artifact that differ from the source, and the cause of each difference.

Every operator runs on the source's activations instead of the artifact's own, so that an error appears only at the
operator that makes it. One layer is in memory at a time.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...artifact import Manifest
from ...models.loading.layerwise import Layerwise
from ...models.rope import RotaryEmbedding
from ..report.result import Finding, TensorError
from .artifact_graph import ArtifactGraph
from .budgets import rounding_budget
from .findings import Check, findings_of, merge_layers
from .layer_checks import LayerChecks
from .outer_checks import OuterChecks
from .scenarios import PROMPT, scenarios
from .source_run import SourceRun

Progress = Callable[[int, int], None]


@torch.inference_mode()
def locate(
    folder: Path,
    manifest: Manifest,
    source: Layerwise,
    tokens: Tensor,
    *,
    tensors: Sequence[TensorError] = (),
    budget: float | None = None,
    threads: int | None = None,
    advance: Progress = lambda done, total: None,
) -> tuple[Finding, ...]:
    """Return a finding for each operator whose own error exceeds its budget, in the order of execution.

    The same mistake in several layers is one finding, in the first of them, which names the others.

    Args:
        tokens: int64 [1, S]. Attention is also checked with a cache longer than this text.
        tensors: the result of the audit; each faulty tensor becomes a finding as well.
        budget: the allowed relative error of an operator without quantized weights; None derives it from the dtype of
            the activations. The budget of a quantized matrix multiplication follows from the manifest and the inputs.
        threads: threads of one operator; None for every processor this process may use.
        advance: called with (layers done, layers in total).

    Returns:
        no findings where the CPU cannot compute in the artifact's precision (bfloat16).

    Raises:
        ArtifactError: the graph cannot be read.
    """
    if manifest.model.cache_dtype == "bfloat16":
        return ()
    config = source.config
    artifact = ArtifactGraph(folder, manifest, config, threads)
    base = rounding_budget(manifest) if budget is None else budget
    rotary = RotaryEmbedding(config.rope, config.head_dim)
    runs = [SourceRun.start(scenario, source, rotary) for scenario in scenarios(tokens, manifest)]
    outer = OuterChecks(artifact, source, base)
    checks: list[Check] = [*outer.embedding(tokens[:, :PROMPT])]
    for index in range(config.num_hidden_layers):
        layer = source.layer(index)
        layer_runs = [run.advance(layer, artifact.tap_map.taps(index)) for run in runs]
        layer_checks = LayerChecks(artifact, source, index, layer, base)
        # A cause needs the layer's weights, so it is found before they are released.
        checks += [check.resolved() for check in layer_checks.run(layer_runs, rotary)]
        advance(index + 1, config.num_hidden_layers)
    checks += outer.norm_and_head(runs)
    return merge_layers(findings_of(checks, tensors))
