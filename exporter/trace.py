"""From a config to a graph: the native module is traced without weights, and only one layer of each kind.

Layers of the same kind (window, rotation, experts) differ only in the names of their weights, so the traced graph has
one layer of each kind, and ``instantiate`` repeats each kind's nodes to the full depth. The module is built from fake
tensors: nothing of the size of a weight is ever allocated.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import onnx_ir as ir
import torch
from onnxscript.optimizer import optimize_ir
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ..artifact import Target, Task
from ..contract import LOGITS_TO_KEEP, OUTPUTS, has_cache, input_names, output_names
from ..devices.presets import USUAL, GraphForm
from ..models.config import ModelConfig
from ..models.heads import CausalLM, build
from ..models.ops import KeyValue, lowered
from .instantiate import instantiate
from .lowering.ort import OrtEncoderOps, OrtOps, refuse_inexpressible, rotates_inside
from .lowering.standard import StandardOps

HEAD = "head"
"""The attribute that holds the traced module; names in the graph start with it until ``tidy`` runs."""

KEPT = "sequence * 1"
"""The name of the logits' second dimension.

Optimum computes the size of an output from the names of its dimensions: Python's arithmetic over the inputs' names. All
positions have logits unless the caller gives ``logits_to_keep``, so that the size may be another than "sequence".
"""


class _Traced(nn.Module):
    """A head with flat, positional arguments and outputs, which are float32 but for the cache."""

    def __init__(self, config: ModelConfig, task: Task) -> None:
        super().__init__()
        self.head = build(config, task)
        self.task: Task = task

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, past: list[KeyValue], logits_to_keep: Tensor
    ) -> tuple[Tensor, ...]:
        if isinstance(self.head, CausalLM):
            output = self.head(input_ids, attention_mask, past_key_values=past, logits_to_keep=logits_to_keep)
            return (output.logits.float(), *(tensor for pair in output.past_key_values for tensor in pair))
        output = self.head(input_ids, attention_mask)
        return tuple(getattr(output, name).float() for name in OUTPUTS[self.task])


def trace(config: ModelConfig, task: Task, target: Target, dtype: torch.dtype, form: GraphForm = USUAL) -> ir.Model:
    """Return the full-depth graph of a task. Its initializers have names, types and shapes, and no values.

    Initializers have the module's parameter names; a tied LM head has the embedding's. Those that are computed from the
    config are ``rotary_emb.inv_freq`` and ``.long_inv_freq`` [E/2].

    Raises:
        UnsupportedError: the target's operators cannot express the model.
    """
    if target == "ort" and config.causal:
        refuse_inexpressible(config)
    shallow, templates = _shallow(config)
    # Passes make the rest.
    traced = GraphForm(opset=form.opset, rotates_inside=form.rotates_inside, fused_experts=form.fused_experts)
    return instantiate(_export(shallow, task, target, dtype, traced), templates)


def _shallow(config: ModelConfig) -> tuple[ModelConfig, list[int]]:
    """Return a config with one layer of each kind, and for each layer of the model the index of its kind."""
    kinds = [config.layer_kind(index) for index in range(config.num_hidden_layers)]
    traced = list(dict.fromkeys(kinds))
    return config.with_layers([kinds.index(kind) for kind in traced]), [traced.index(kind) for kind in kinds]


def _export(config: ModelConfig, task: Task, target: Target, dtype: torch.dtype, form: GraphForm) -> ir.Model:
    generates = has_cache(task)
    batch = 1 if task == "text-classification" and config.pad_token_id is None else 2
    sequence, past_length = 3, 5 if generates else 0
    windows = dict.fromkeys(config.layer_windows)
    with FakeTensorMode(), _quiet():
        with _default_dtype(dtype):  # parameters only: the frequencies stay float32
            module = _Traced(config, task).eval()
        past = torch.empty(batch, config.num_key_value_heads, past_length, config.head_dim, dtype=dtype)
        arguments = (
            torch.zeros(batch, sequence, dtype=torch.int64),
            torch.ones(batch, past_length + sequence, dtype=torch.int64),
            [(past.clone(), past.clone()) for _ in range(config.num_hidden_layers if generates else 0)],
            torch.ones(1, dtype=torch.int64),
        )
        ops: OrtOps | StandardOps
        if target == "standard":
            ops = StandardOps(windows, dtype)
        elif config.causal:
            tables = rotates_inside(config) if form.rotates_inside else not config.rope.length_dependent
            ops = OrtOps(dtype, table_rows=config.context_length if tables else None, form=form)
        else:
            ops = OrtEncoderOps(windows, dtype)
        with lowered(ops):
            program = torch.onnx.export(
                module,
                arguments,
                input_names=[*input_names(task, config.num_hidden_layers), LOGITS_TO_KEEP],
                output_names=output_names(task, config.num_hidden_layers),
                dynamic_shapes=_dynamic(len(arguments[2]), batch),
                opset_version=ops.opset,
                dynamo=True,
                optimize=False,  # the optimizer reads weights
                verbose=False,
            )
    assert program is not None
    model = program.model
    model.ir_version = ops.ir_version
    _tidy_interface(model, config, generates)
    _forget_routed_shapes(model.graph)
    for value in model.graph.initializers.values():
        if value.name != LOGITS_TO_KEEP:
            value.const_value = None  # fake: the values come from the checkpoint
    with _quiet():
        # Folds what torch leaves around shapes and slices. A Range of constants is the start of a rotary table, which
        # ONNX Runtime folds at load: kept, it takes no space in the file.
        optimize_ir(model, should_fold=lambda node: False if node.op_type == "Range" else None)
    return model


def _dynamic(layers: int, batch: int) -> tuple[object, ...]:
    rows = {0: "batch_size"} if batch > 1 else {}
    cache = {**rows, 2: "past_sequence"}
    return {**rows, 1: "sequence"}, {**rows, 1: "total_sequence"}, [(cache, cache)] * layers, None


def _tidy_interface(model: ir.Model, config: ModelConfig, generates: bool) -> None:
    """Name the dimensions that torch could not, and drop or default ``logits_to_keep``."""
    graph = model.graph
    total = "total_sequence" if generates else "sequence"
    _rename_dimensions(graph, {0: ["batch_size", "sequence"], 1: ["batch_size", total]})
    keep = graph.inputs[-1]
    assert keep.name == LOGITS_TO_KEEP
    if generates:
        # An input with an initializer of the same name is optional.
        keep.const_value = ir.tensor([0], dtype=ir.DataType.INT64, name=keep.name)
        graph.register_initializer(keep)
        _forget_shapes(keep)
        batch = graph.inputs[0].shape[0]  # type: ignore[index]
        graph.outputs[0].shape = ir.Shape([batch, KEPT, config.vocab_size])
        for present in graph.outputs[1:]:
            dims = [batch, config.num_key_value_heads, "present_sequence", config.head_dim]
            present.shape = ir.Shape(dims)
    else:
        graph.inputs.pop()


def _rename_dimensions(graph: ir.Graph, names: Mapping[int, Sequence[str]]) -> None:
    """Rename the dimensions of inputs, given by their index, wherever they occur."""
    renamed = {
        str(dim): name
        for index, dims in names.items()
        for dim, name in zip(graph.inputs[index].shape or (), dims, strict=True)
        if isinstance(dim, ir.SymbolicDim)
    }
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([renamed.get(str(dim), dim) for dim in value.shape])


def _forget_shapes(value: ir.Value) -> None:
    """Drop the shapes of all that depends on ``value``: torch took the kept positions to be the whole sequence."""
    for node, _ in value.uses():
        for output in node.outputs:
            output.shape = None
            _forget_shapes(output)


def _forget_routed_shapes(graph: ir.Graph) -> None:
    """Drop the shapes of what one expert computes: torch took every token to choose it."""
    routed: set[ir.Value] = set()
    for node in graph:
        if node.op_type == "NonZero" or (node.op_type != "ScatterND" and not routed.isdisjoint(node.inputs)):
            for output in node.outputs:
                output.shape = None
            routed.update(node.outputs)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch about packages that are not used here and about its own deprecations."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
