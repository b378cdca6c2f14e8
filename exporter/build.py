"""From a checkpoint's config to the finished graph: trace, rewrite, and a recipe for each weight."""

from dataclasses import replace

import onnx_ir as ir
import torch

from ..artifact import FloatPrecision, Target, Task
from ..contract import LOGITS_TO_KEEP
from ..devices.presets import USUAL, GraphForm
from ..models.dtypes import TORCH_DTYPES
from ..models.heads import build, projection_path
from ..models.loading.parameters import check_parameters, stored_name
from ..models.rope import RotaryEmbedding
from ..models.weight_source import WeightSource
from .graph import ExportGraph
from .passes.fold_transpose import fold_transpose
from .passes.fuse_experts import can_fuse, fuse_experts
from .passes.fuse_skip_norm import fuse_skip_norm
from .passes.pack_qkv import pack_qkv
from .passes.quantize_dynamic import quantize_dynamic
from .passes.quantize_ort import quantize_ort
from .passes.quantize_standard import quantize_standard
from .passes.tidy import tidy
from .progress import Progress
from .quantize.solve import Quantizer
from .quantize.stored.weights import StoredWeights
from .trace import HEAD, trace
from .weights import Computed, Stored


def build_graph(
    checkpoint: WeightSource,
    task: Task,
    target: Target,
    precision: FloatPrecision,
    report: Progress,
    quantizer: Quantizer | StoredWeights | None = None,
    form: GraphForm = USUAL,
) -> ExportGraph:
    """Build the finished graph of a checkpoint, with the recipes of its weights; only headers are read.

    Args:
        precision: of the activations, and of the weights that ``quantizer`` does not quantize.
        report: called with the stage "graph", in steps.
        form: what a device wants otherwise than usual.

    Raises:
        CheckpointError, UnsupportedError: the tensors are not those of the task's module, or the target's operators
            cannot express the model.
    """
    config = checkpoint.config
    with torch.device("meta"):
        module = build(config, task)
    check_parameters(checkpoint, task, module)
    report("graph", 0, 2)
    blocks = None if quantizer is None else quantizer.blocks
    fuses = target == "ort" and config.causal and form.fused_experts and can_fuse(checkpoint, blocks)
    form = replace(form, fused_experts=fuses)
    model = trace(config, task, target, TORCH_DTYPES[precision], form)
    report("graph", 1, 2)
    graph = ExportGraph(model)
    tied = {"lm_head.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {}
    for value in list(model.graph.initializers.values()):
        if value.const_value is None:
            name = (value.name or "").removeprefix(f"{HEAD}.")
            value.name = tied.get(name, name)
            graph.streams[value.name] = _recipe(checkpoint, task, value).stream
    fold_transpose(graph)
    if form.fused_experts:
        fuse_experts(graph, blocks)
    if target == "ort":
        if form.packed_qkv:
            pack_qkv(graph, quantizer.alike if quantizer else lambda tensors: True)
        if form.fused_norms:
            fuse_skip_norm(graph)
        for norm in graph.nodes(USUAL.norm):
            norm.op_type = form.norm  # the same attributes and inputs
    if quantizer is not None:
        quantize_dynamic(graph, quantizer.channels)
        if target == "ort":
            quantize_ort(graph, quantizer.blocks, form)
        else:
            quantize_standard(graph, quantizer.blocks)
    tidy(graph, projection_path(task))
    if not form.optional_logits_to_keep:
        _require_logits_to_keep(graph)
    report("graph", 2, 2)
    return graph


def _require_logits_to_keep(graph: ExportGraph) -> None:
    """Drop the default of the input ``logits_to_keep``."""
    value = graph.model.graph.initializers.pop(LOGITS_TO_KEEP, None)
    if value is not None:
        value.const_value = None


def _recipe(checkpoint: WeightSource, task: Task, value: ir.Value) -> Stored | Computed:
    config = checkpoint.config
    assert value.name is not None
    assert value.shape is not None
    shape = tuple(int(size) for size in value.shape)  # type: ignore[arg-type]
    owner, _, leaf = value.name.rpartition(".")
    if not owner.endswith("rotary_emb"):
        return Stored(stored_name(checkpoint, value.name, task), shape)

    def compute() -> torch.Tensor:
        return RotaryEmbedding(config.rope, config.head_dim).get_buffer(leaf)

    return Computed(shape, compute)
