"""Weights in blocks for ONNX Runtime: MatMulNBits and GatherBlockQuantized (onnxruntime/docs/ContribOperators.md).

A bias is folded in unless the form says otherwise. A tied embedding is stored once: both nodes take the same codes, and
the bytes of its scales are used in two shapes. Scales are stored in float16, and widened by a Cast that ONNX Runtime
folds when it loads the graph, or in the form of the device as they are used.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...devices.presets import USUAL, GraphForm
from ..graph import ExportGraph
from ..quantize.formats.nbits import NBitsWeight
from ..quantize.formats.weight import CODES, SCALES, ZERO_POINTS, RowSource
from ..weights import Stacked, Stored, Transposed


@dataclass(frozen=True)
class _StoredBlocks:
    """A quantized weight and its initializers."""

    weight: NBitsWeight
    codes: ir.Value
    scales: ir.Value
    zero_points: ir.Value | None


def quantize_ort(
    graph: ExportGraph, choose: Callable[[Stored | Stacked], RowSource | None], form: GraphForm = USUAL
) -> int:
    """Replace the multiplications and lookups of weights for which ``choose`` returns rows; return how many."""
    known: dict[ir.Value, _StoredBlocks] = {}
    count = 0
    for node, weight, inner in weight_uses(graph, "FusedMatMul"):
        if weight not in known:
            rows = choose(inner)
            if rows is None:
                continue
            scales = ir.DataType.FLOAT16 if form.half_scales else weight.dtype
            known[weight] = _store(graph, weight, NBitsWeight(rows), scales)
        if node.op_type == "Gather":
            _look_up(graph, node, known[weight])
        else:
            _multiply(graph, node, known[weight], form.folded_bias)
        count += 1
    graph.drop_unused_weights()
    return count


def weight_uses(graph: ExportGraph, transposing: str) -> Iterator[tuple[ir.Node, ir.Value, Stored | Stacked]]:
    """Iterate over the multiplications and lookups of weights; the graph may change meanwhile.

    Args:
        transposing: the operator that multiplies by a weight [N, K] as it is stored: FusedMatMul or Gemm.

    Yields:
        node, weight, and the weight's recipe as [N, K].
    """
    for node in list(graph.model.graph):
        weight = _operand(node, transposing)
        recipe = graph.recipe_of(weight)
        inner = recipe.inner if isinstance(recipe, Transposed) else recipe
        if weight is not None and isinstance(inner, Stored | Stacked):
            yield node, weight, inner


def _operand(node: ir.Node, transposing: str) -> ir.Value | None:
    """Return the operand that may be a weight in blocks: the right one of a multiplication, the rows of a Gather."""
    if node.op_type == "MatMul":
        return node.inputs[1]
    if node.op_type == transposing and len(node.inputs) == 2 and node.attributes["transB"].as_int():
        return node.inputs[1]
    return node.inputs[0] if node.op_type == "Gather" else None


def _store(
    graph: ExportGraph, weight: ir.Value, quantized: NBitsWeight, scale_type: ir.DataType | None
) -> _StoredBlocks:
    name = (weight.name or "").removesuffix(".weight")
    byte = ir.TensorType(ir.DataType.UINT8)
    codes = graph.add_weight(f"{name}.{CODES}", quantized.codes, byte)
    assert scale_type is not None
    scales = graph.add_weight(f"{name}.{SCALES}", quantized.scales, ir.TensorType(scale_type))
    zeros = None
    if not quantized.format.symmetric:
        zeros = graph.add_weight(f"{name}.{ZERO_POINTS}", quantized.zero_points, byte)
    return _StoredBlocks(quantized, codes, scales, zeros)


def _multiply(graph: ExportGraph, node: ir.Node, stored: _StoredBlocks, folds_bias: bool) -> None:
    bias, last = _bias(graph, node) if folds_bias else (None, node)
    output = last.outputs[0]
    assert output.dtype is not None
    scales = _as(graph, node, stored.scales, output.dtype)
    inputs = [node.inputs[0], stored.codes, scales, stored.zero_points, None, bias]
    while inputs[-1] is None:
        inputs.pop()
    rows, columns = stored.weight.shape
    format = stored.weight.format
    attributes = {
        "K": columns,
        "N": rows,
        "bits": format.bits,
        "block_size": format.block_size,
        "accuracy_level": stored.weight.source.scheme.accuracy_level,
    }
    product = ir.Node(
        "com.microsoft",
        "MatMulNBits",
        inputs,
        attributes=[ir.AttrInt64(key, value) for key, value in attributes.items()],
        metadata_props=dict(node.metadata_props),
    )
    graph.model.graph.insert_before(node, product)
    graph.replace_output(output, product.outputs[0])
    graph.model.graph.remove([last] if last is node else [last, node], safe=True)


def _bias(graph: ExportGraph, node: ir.Node) -> tuple[ir.Value | None, ir.Node]:
    """Return the bias that only this multiplication adds, and the node with the sum; or None and the node itself."""
    users = [user for user, _ in node.outputs[0].uses()]
    if len(users) == 1 and not node.outputs[0].is_graph_output():
        add = users[0]
        if add.op_type == "Add" and add.inputs[0] is node.outputs[0] and graph.recipe_of(add.inputs[1]) is not None:
            return add.inputs[1], add
    return None, node


def _look_up(graph: ExportGraph, node: ir.Node, stored: _StoredBlocks) -> None:
    output = node.outputs[0]
    assert output.dtype is not None
    weight, size = stored.weight, stored.weight.format.block_size
    props = dict(node.metadata_props)
    # A row of blocks is looked up as [KB, block_size]; with scales of [V, KB, 1] the codes need no copy.
    by_row = graph.alias(stored.scales, f"{stored.scales.name}.rows", (*weight.scales.shape, 1))
    scales = _as(graph, node, by_row, output.dtype)
    rows = ir.Node(
        "com.microsoft",
        "GatherBlockQuantized",
        [stored.codes, node.inputs[1], scales],
        attributes=[
            ir.AttrInt64("bits", weight.format.bits),
            ir.AttrInt64("block_size", size),
            ir.AttrInt64("gather_axis", 0),
            ir.AttrInt64("quantize_axis", 2),
        ],
        metadata_props=dict(props),
    )
    flat = _reshape(graph, rows.outputs[0], weight.blocks * size, props)
    new = [rows, flat]
    columns = weight.shape[1]
    if weight.blocks * size != columns:
        ends = [graph.constant(np.array([value])) for value in (0, columns, -1)]
        new.append(ir.Node("", "Slice", [flat.outputs[0], *ends], metadata_props=dict(props)))
    graph.model.graph.insert_before(node, new)
    graph.replace_output(output, new[-1].outputs[0])
    graph.model.graph.remove(node, safe=True)


def _reshape(graph: ExportGraph, value: ir.Value, width: int, props: dict[str, str]) -> ir.Node:
    return ir.Node("", "Reshape", [value, graph.constant(np.array([0, 0, width]))], metadata_props=dict(props))


def _as(graph: ExportGraph, node: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """Return ``value`` in another element type, by a Cast before ``node``."""
    if value.dtype == dtype:
        return value
    props = dict(node.metadata_props)
    cast = ir.Node("", "Cast", [value], attributes=[ir.AttrInt64("to", int(dtype))], metadata_props=props)
    cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(dtype), value.shape
    graph.model.graph.insert_before(node, cast)
    return cast.outputs[0]
