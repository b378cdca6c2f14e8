"""Where an artifact went wrong: every operator is run on what the source gives it, and compared with the source.

What an operator gets from the one before it is replaced by the source's numbers, so that an error shows where it
arises and nowhere else. Layer by layer, in the memory of a layer.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...artifact import Manifest
from ...models.layerwise import Layerwise
from ...models.rope import RotaryEmbedding
from ..report.result import Finding, TensorError
from .batches import PROMPT, Trail, batches
from .budgets import rounding
from .ends import Ends
from .judgement import Judgement, findings_of, together
from .layer import LayerProbe
from .probe import Probe

Progress = Callable[[int, int], None]


@torch.inference_mode()
def locate(
    folder: Path,
    manifest: Manifest,
    stream: Layerwise,
    tokens: Tensor,
    *,
    tensors: Sequence[TensorError] = (),
    budget: float | None = None,
    threads: int | None = None,
    advance: Progress = lambda done, total: None,
) -> tuple[Finding, ...]:
    """The places whose own error exceeds what their precision allows, in the order of execution.

    The same mistake in several layers is one finding, in the first of them, that names the others.

    Args:
        tokens: int64 [1, S]. Attention is tried behind a longer cache, too, which needs no text.
        tensors: what an audit of the weights found; their faults become findings, too.
        budget: the relative error that an operator without quantized weights may have; None for what the element type
            of the activations allows. That of quantized products follows from the manifest and from the inputs.
        threads: of one operator; None for every processor this process may use.
        advance: hears how many layers are done, and how many there are.

    Returns:
        no findings where the CPU cannot compute in the artifact's precision (bfloat16).

    Raises:
        ArtifactError: the graph cannot be read.
    """
    if manifest.model.cache_dtype == "bfloat16":
        return ()
    config = stream.config
    probe = Probe(folder, manifest, config, threads)
    base = rounding(manifest) if budget is None else budget
    rotary = RotaryEmbedding(config.rope, config.head_dim)
    trails = [
        Trail(batch, rotary, stream.embed(batch.past_ids) if batch.past else torch.empty(0), stream.embed(batch.ids))
        for batch in batches(tokens, manifest)
    ]
    ends = Ends(probe, stream, base)
    judgements: list[Judgement] = [*ends.embedding(tokens[:, :PROMPT])]
    for index in range(config.num_hidden_layers):
        layer = stream.layer(index)
        steps = [trail.step(layer, probe.anatomy.places) for trail in trails]
        found = LayerProbe(probe, stream, index, layer, base).judgements(steps, rotary)
        # What the causes are is found out while the layer is in memory.
        judgements += [judgement.settled() for judgement in found]
        advance(index + 1, config.num_hidden_layers)
    judgements += ends.behind(trails)
    return together(findings_of(judgements, tensors))
