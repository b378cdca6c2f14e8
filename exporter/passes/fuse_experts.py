"""The experts of a layer as one operator of ONNX Runtime, MoE or QMoE (onnxruntime/docs/ContribOperators.md).

The weights of all experts are one initializer [X, 2F, D] for gate and up, in whose rows the two alternate, and one
[X, D, F] for down; quantized ones are, for each expert, in the layout of MatMulNBits. They are written one expert after
the other. QMoE gets the probabilities of all experts beside the logits: without them ONNX Runtime's CPU kernel takes
the softmax over the chosen experts only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from ...models.activations import SILU
from ...models.config import ModelConfig
from ...models.heads import trunk_path
from ...models.loading.parameters import stored_name
from ...models.weight_source import WeightSource
from ..graph import ExportGraph
from ..quantize.formats.nbits import NBitsWeight
from ..quantize.formats.rows_in_turn import RowsInTurn
from ..quantize.formats.weight import CODES, SCALES, ZERO_POINTS, RowSource
from ..weights import InTurn, Stacked, Stored
from .stored_inputs import scale_type
from .writer import Writer

Choose = Callable[[Stored | Stacked], RowSource | None]
GATE_UP, DOWN = "gate_up_proj", "down_proj"


def can_fuse(checkpoint: WeightSource, choose: Choose | None) -> bool:
    """Return true if MoE or QMoE computes the experts of every layer: their formats are the same, or all are float."""
    config = checkpoint.config
    experts = config.experts
    if experts is None or config.hidden_act != SILU:
        return False
    mixtures = [index for index, mixes in enumerate(experts.layers) if mixes]
    return all(_alike(_stored(checkpoint, config, index), choose) for index in mixtures)


def _stored(checkpoint: WeightSource, config: ModelConfig, layer: int) -> list[Stored]:
    """Return the weights of a layer's experts."""
    assert config.experts is not None
    up, down = (config.experts.size, config.hidden_size), (config.hidden_size, config.experts.size)
    path = f"{trunk_path(checkpoint.task)}layers.{layer}.mlp.experts"
    return [
        Stored(stored_name(checkpoint, f"{path}.{index}.{name}.weight", checkpoint.task), shape)
        for index in range(config.experts.count)
        for name, shape in (("gate_proj", up), ("up_proj", up), ("down_proj", down))
    ]


def _alike(weights: Sequence[Stored], choose: Choose | None) -> bool:
    sources = [None if choose is None else choose(weight) for weight in weights]
    if all(source is None for source in sources):
        return True
    schemes = [source.scheme for source in sources if source is not None]
    if len(schemes) < len(weights):
        return False
    first = schemes[0]
    plain = all(scheme.order is None and scheme.offset_type is None for scheme in schemes)
    same = len({(scheme.format, scheme.accuracy_level, scheme.scale_type) for scheme in schemes}) == 1
    size = first.format.block_size
    return plain and same and size & (size - 1) == 0 and all(weight.shape[1] % size == 0 for weight in weights)


def fuse_experts(graph: ExportGraph, choose: Choose | None) -> int:
    """Replace the nodes that ``lowering.experts`` wrote; return how many."""
    count = 0
    for node in graph.nodes("Experts"):
        parts = [_recipe(graph, value) for value in node.inputs[2:]]
        gates_ups = [(gate, up) for gate, up in zip(parts[::3], parts[1::3], strict=True)]
        downs = [(down,) for down in parts[2::3]]
        first = node.inputs[2]
        assert first is not None
        prefix = (first.name or "").removesuffix("0.gate_proj.weight")
        quantized = choose is not None and choose(parts[0]) is not None
        make = _quantized if quantized else _float
        make(graph, node, prefix, gates_ups, downs, choose)
        graph.model.graph.remove(node, safe=True)
        count += 1
    graph.drop_unused_weights()
    return count


Groups = Sequence[tuple[Stored, ...]]


def _recipe(graph: ExportGraph, value: ir.Value | None) -> Stored:
    recipe = graph.recipe_of(value)
    assert isinstance(recipe, Stored)
    return recipe


def _float(
    graph: ExportGraph, node: ir.Node, prefix: str, gates_ups: Groups, downs: Groups, choose: Choose | None
) -> None:
    x, logits, first = node.inputs[:3]
    assert first is not None
    weights = [
        graph.add_weight(f"{prefix}{name}.weight", InTurn(tuple(groups)).stream, first.type)
        for name, groups in ((GATE_UP, gates_ups), (DOWN, downs))
    ]
    _insert(graph, node, "MoE", [x, logits, weights[0], None, weights[1]], [])


@dataclass(frozen=True)
class _Blocks:
    codes: ir.Value
    scales: ir.Value
    zero_points: ir.Value | None


def _quantized(
    graph: ExportGraph, node: ir.Node, prefix: str, gates_ups: Groups, downs: Groups, choose: Choose | None
) -> None:
    assert choose is not None
    x, logits = node.inputs[:2]
    sources = [
        RowsInTurn(InTurn(tuple(groups)), tuple(tuple(_rows(choose, part) for part in group) for group in groups))
        for groups in (gates_ups, downs)
    ]
    up, down = (
        _store(graph, f"{prefix}{name}", source, len(downs), node)
        for name, source in zip((GATE_UP, DOWN), sources, strict=True)
    )
    write = Writer(graph, node)
    probabilities = write("Softmax", write.cast(logits, ir.DataType.FLOAT) if logits else None, axis=-1)
    assert x is not None
    assert x.dtype is not None
    probabilities = write.cast(probabilities, x.dtype)
    scheme = sources[0].scheme
    attributes = {
        "expert_weight_bits": scheme.format.bits,
        "block_size": scheme.format.block_size,
        "accuracy_level": scheme.accuracy_level,
    }
    inputs: list[ir.Value | None] = [x, logits, up.codes, up.scales, None, down.codes, down.scales, *[None] * 4]
    inputs += [up.zero_points, down.zero_points, None, probabilities]
    _insert(graph, node, "QMoE", inputs, [ir.AttrInt64(key, value) for key, value in attributes.items()])


def _rows(choose: Choose, part: Stored) -> RowSource:
    rows = choose(part)
    assert rows is not None
    return rows


def _store(graph: ExportGraph, name: str, source: RowsInTurn, experts: int, node: ir.Node) -> _Blocks:
    weight = NBitsWeight(source)
    rows, columns = weight.shape
    format = weight.format
    byte = ir.TensorType(ir.DataType.UINT8)
    dtype = node.outputs[0].dtype
    assert dtype is not None
    each = rows // experts
    codes = replace(weight.codes, shape=(experts, each, columns * format.bits // 8))
    scales = replace(weight.scales, shape=(experts, each, weight.blocks))
    zeros = None
    if not format.symmetric:
        stream = replace(weight.zero_points, shape=(experts, each, format.packed_bytes(weight.blocks)))
        zeros = graph.add_weight(f"{name}.{ZERO_POINTS}", stream, byte)
    return _Blocks(
        graph.add_weight(f"{name}.{CODES}", codes, byte),
        graph.add_weight(f"{name}.{SCALES}", scales, scale_type(source.scheme, dtype)),
        zeros,
    )


def _insert(
    graph: ExportGraph, node: ir.Node, op_type: str, inputs: list[ir.Value | None], more: list[ir.Attr]
) -> None:
    attributes = [
        ir.AttrInt64("k", node.attributes["k"].as_int()),
        ir.AttrString("activation_type", "swiglu"),
        ir.AttrInt64("swiglu_fusion", 1),
        ir.AttrFloat32("activation_alpha", 1.0),
        ir.AttrFloat32("activation_beta", 0.0),
        ir.AttrInt64("normalize_routing_weights", node.attributes["normalize"].as_int()),
        *more,
    ]
    while inputs[-1] is None:
        inputs.pop()
    fused = ir.Node("com.microsoft", op_type, inputs, attributes=attributes, metadata_props=dict(node.metadata_props))
    graph.model.graph.insert_before(node, fused)
    graph.replace_output(node.outputs[0], fused.outputs[0])
