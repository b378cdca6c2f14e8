"""Weights in blocks for ONNX Runtime: MatMulNBits and GatherBlockQuantized (onnxruntime/docs/ContribOperators.md).

A bias is folded in unless the form says otherwise. A tied embedding is stored once: both nodes take the same codes, and
the bytes of its scales are used in two shapes. Scales are stored in float16, where that holds them, and widened by a
Cast that ONNX Runtime folds when it loads the graph, or in the form of the device as they are used. Weights of 5 bits
are those of 8 bits to both operators: a function joins their parts (``join_bits``).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from ...devices.presets import USUAL, GraphForm
from ..graph import ExportGraph
from ..quantize.formats.nbits import NBitsWeight
from ..quantize.formats.weight import CODES, LOW_BITS, SCALES, ZERO_POINTS, RowSource
from ..weights import Stacked, Stored, Transposed
from .join_bits import join_bits
from .stored_inputs import StoredInputs, add_offset_rows, add_offsets, offset_type, scale_type
from .writer import Writer


@dataclass(frozen=True)
class _StoredBlocks:
    """A quantized weight in a graph; ``offsets`` are [N, KB] where its rows are looked up, else [KB, N]."""

    name: str
    weight: NBitsWeight
    codes: ir.Value
    scales: ir.Value
    zero_points: ir.Value | None
    offsets: ir.Value | None

    @property
    def bits(self) -> int:
        """The bits of ``codes``."""
        return 8 if self.weight.format.bits == 5 else self.weight.format.bits


def quantize_ort(
    graph: ExportGraph, choose: Callable[[Stored | Stacked], RowSource | None], form: GraphForm = USUAL
) -> int:
    """Replace the multiplications and lookups of weights for which ``choose`` returns rows; return how many."""
    known: dict[ir.Value, _StoredBlocks] = {}
    inputs = StoredInputs(graph)
    count = 0
    for node, weight, inner in weight_uses(graph, "FusedMatMul"):
        if weight not in known:
            rows = choose(inner)
            if rows is None:
                continue
            known[weight] = _store(graph, node, weight, NBitsWeight(rows), form.half_scales)
        if node.op_type == "Gather":
            _look_up(graph, node, known[weight], inputs)
        else:
            _multiply(graph, node, known[weight], inputs, form.folded_bias)
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


def _store(graph: ExportGraph, node: ir.Node, weight: ir.Value, quantized: NBitsWeight, half: bool) -> _StoredBlocks:
    """Store a weight, whose first use is ``node``."""
    name = (weight.name or "").removesuffix(".weight")
    byte = ir.TensorType(ir.DataType.UINT8)
    codes = graph.add_weight(f"{name}.{CODES}", quantized.codes, byte)
    if quantized.format.bits == 5:
        codes = join_bits(graph, node, codes, graph.add_weight(f"{name}.{LOW_BITS}", quantized.low_bits, byte))
    assert weight.dtype is not None
    scheme = quantized.source.scheme
    scales = graph.add_weight(f"{name}.{SCALES}", quantized.scales, scale_type(scheme, weight.dtype, half=half))
    zeros = offsets = None
    if not quantized.format.symmetric:
        zeros = graph.add_weight(f"{name}.{ZERO_POINTS}", quantized.zero_points, byte)
    if scheme.offset_type is not None:
        type = offset_type(scheme, weight.dtype, half=half)
        offsets = (add_offset_rows if node.op_type == "Gather" else add_offsets)(graph, name, quantized, type)
    return _StoredBlocks(name, quantized, codes, scales, zeros, offsets)


def _multiply(
    graph: ExportGraph, node: ir.Node, stored: _StoredBlocks, activations: StoredInputs, folds_bias: bool
) -> None:
    bias, last = _bias(graph, node) if folds_bias else (None, node)
    output = last.outputs[0]
    assert output.dtype is not None
    scales = _as(graph, node, stored.scales, output.dtype)
    write, x = Writer(graph, node), node.inputs[0]
    assert x is not None
    x = activations.sorted(write, x, stored.weight.source.scheme.order, stored.name)
    inputs = [x, stored.codes, scales, stored.zero_points, None, bias]
    while inputs[-1] is None:
        inputs.pop()
    rows, columns = stored.weight.shape
    format = stored.weight.format
    attributes = {
        "K": columns,
        "N": rows,
        "bits": stored.bits,
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
    found = product.outputs[0]
    if stored.offsets is not None:
        found.type = output.type
        offsets = _as(graph, node, stored.offsets, output.dtype)
        if stored.offsets.shape != ir.Shape(stored.weight.offsets.shape):
            offsets = write("Transpose", offsets, perm=[1, 0])
        found = write("Add", found, activations.offset_product(write, x, stored.weight, offsets))
    graph.replace_output(output, found)
    graph.model.graph.remove([last] if last is node else [last, node], safe=True)


def _bias(graph: ExportGraph, node: ir.Node) -> tuple[ir.Value | None, ir.Node]:
    """Return the bias that only this multiplication adds, and the node with the sum; or None and the node itself."""
    users = [user for user, _ in node.outputs[0].uses()]
    if len(users) == 1 and not node.outputs[0].is_graph_output():
        add = users[0]
        if add.op_type == "Add" and add.inputs[0] is node.outputs[0] and graph.recipe_of(add.inputs[1]) is not None:
            return add.inputs[1], add
    return None, node


def _look_up(graph: ExportGraph, node: ir.Node, stored: _StoredBlocks, inputs: StoredInputs) -> None:
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
            ir.AttrInt64("bits", stored.bits),
            ir.AttrInt64("block_size", size),
            ir.AttrInt64("gather_axis", 0),
            ir.AttrInt64("quantize_axis", 2),
        ],
        metadata_props=dict(props),
    )
    graph.model.graph.insert_before(node, rows)
    write, blocks = Writer(graph, node), rows.outputs[0]
    blocks.type = output.type
    if stored.offsets is not None:
        offsets = write.cast(write("Gather", stored.offsets, node.inputs[1]), output.dtype)
        blocks = write("Add", blocks, write("Unsqueeze", offsets, write.ints(-1)))
    found = write.rows(blocks, weight.blocks * size, weight.shape[1])
    graph.replace_output(output, inputs.unsorted(write, found, weight.source.scheme.order, stored.name))
    graph.model.graph.remove(node, safe=True)


def _as(graph: ExportGraph, node: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """Return ``value`` in another element type, by a Cast before ``node``."""
    if value.dtype == dtype:
        return value
    props = dict(node.metadata_props)
    cast = ir.Node("", "Cast", [value], attributes=[ir.AttrInt64("to", int(dtype))], metadata_props=props)
    cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(dtype), value.shape
    graph.model.graph.insert_before(node, cast)
    return cast.outputs[0]
