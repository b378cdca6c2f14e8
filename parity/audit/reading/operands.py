"""What an operator computes with: its attributes, the initializers behind its inputs, and what surrounds a product.

A weight whose columns are sorted by group (GPTQ's act-order) takes its activations through a Gather over the last axis.
A weight with offsets is two products: W x = (scales * codes) x + offsets (sums of x over each block).
"""

from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from ....contract import MODULE_KEY
from .embeddings import UnsupportedUse
from .stored import MatrixView, StoredArray

PASSED_THROUGH = ("Cast", "Transpose")
"""Operators between an initializer and its user that are followed."""

ELEMENT_BY_ELEMENT = ("Cast", "Div", "QuantizeLinear", "DequantizeLinear")
"""Operators between the Gather of the activations and a product that leave each number in its column."""

INDICES = (ir.DataType.INT32, ir.DataType.INT64)


def attribute(node: ir.Node, name: str, default: int | None = None) -> int:
    """Return an integer attribute.

    Raises:
        UnsupportedUse: the node lacks it, and it has no default.
    """
    found = node.attributes.get(name)
    if found is not None:
        return int(found.as_int())
    if default is None:
        raise UnsupportedUse(f"{node.op_type} lacks the attribute {name}")
    return default


def initializer(value: ir.Value | None, folder: Path) -> tuple[StoredArray, bool]:
    """Return the initializer before Casts and Transposes, and whether it is transposed on the way."""
    transposed = False
    while value is not None and (node := value.producer()) is not None and node.op_type in PASSED_THROUGH:
        transposed ^= node.op_type == "Transpose"
        value = node.inputs[0]
    array = None if value is None else StoredArray.of(value, folder)
    if array is None:
        raise UnsupportedUse("its scales or zero points are not initializers")
    return array, transposed


def operand(node: ir.Node, index: int, folder: Path) -> StoredArray:
    """Return the initializer behind an input."""
    return initializer(node.inputs[index] if len(node.inputs) > index else None, folder)[0]


def check_count(array: StoredArray, count: int, what: str) -> None:
    """Raise UnsupportedUse unless there is one number for each of ``count`` blocks."""
    if array.elements != count:
        raise UnsupportedUse(f"{array.name} has {array.elements:,} {what}, and the weight has {count:,} blocks")


def gathered_order(activations: ir.Value | None, columns: int) -> tuple[int, ...] | None:
    """Return the input that each column of a weight [N, ``columns``] is multiplied by; None for their own order.

    Raises:
        UnsupportedUse: activations are gathered, and not each one once.
    """
    node = activations.producer() if activations is not None else None
    while node is not None and node.op_type in ELEMENT_BY_ELEMENT:
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    return None if node is None else _last_axis_order(node, columns)


def spread_order(rows: ir.Value, columns: int) -> tuple[int, ...] | None:
    """Return the column of the embedding that each column of its looked-up ``rows`` [..., ``columns``] becomes."""
    for node in within_module(rows):
        if (taken := _last_axis_order(node, columns)) is not None:
            place = {column: place for place, column in enumerate(taken)}
            return tuple(place[column] for column in range(columns))
    return None


def within_module(value: ir.Value) -> Iterator[ir.Node]:
    """Yield the nodes that follow a value one after another, as long as they belong to the module that computes it.

    Others are users of the module's output: of an embedding's, the first layer.
    """
    producer = value.producer()
    module = producer.metadata_props.get(MODULE_KEY) if producer is not None else None
    while len(users := [use.node for use in value.uses()]) == 1 and users[0].metadata_props.get(MODULE_KEY) == module:
        yield users[0]
        value = users[0].outputs[0]


def _last_axis_order(node: ir.Node, columns: int) -> tuple[int, ...] | None:
    """Return the indices of a Gather over the last axis of [B, S, K]; None for other nodes."""
    if node.op_type != "Gather" or attribute(node, "axis", 0) not in (-1, 2):
        return None
    tensor = node.inputs[1].const_value if node.inputs[1] is not None else None
    if tensor is None or tensor.dtype not in INDICES or len(tensor.shape) != 1:
        return None
    found = tuple(int(index) for index in tensor.numpy().tolist())
    if sorted(index % columns if -columns <= index < columns else -1 for index in found) != list(range(columns)):
        raise UnsupportedUse(f"{node.name} gathers other activations than each of its {columns:,} inputs once")
    return tuple(index % columns for index in found)


def added_offsets(
    product: ir.Value, activations: ir.Value | None, rows: int, blocks: int, folder: Path
) -> MatrixView | None:
    """Return the offsets [N, KB] that are added to a product by a second one; None where there are none.

    Raises:
        UnsupportedUse: the second product is not of the block sums of the same activations.
    """
    users = [use.node for use in product.uses()]
    if len(users) != 1 or users[0].op_type != "Add":
        return None
    other = next((value for value in users[0].inputs if value is not None and value is not product), None)
    second = other.producer() if other is not None else None
    if second is None:
        is_bias = other is not None and other.is_initializer()
        return added_offsets(users[0].outputs[0], activations, rows, blocks, folder) if is_bias else None
    sums = second.inputs[0].producer() if second.inputs and second.inputs[0] is not None else None
    if second.op_type not in ("MatMul", "Gemm") or sums is None or sums.op_type != "ReduceSum":
        return None
    if _summed(sums) is not activations:
        raise UnsupportedUse(f"{second.name} multiplies block sums of other activations by the offsets")
    array, transposed = initializer(second.inputs[1], folder)
    check_count(array, rows * blocks, "offsets")
    if second.op_type == "Gemm" and attribute(second, "transB", 0):
        transposed = not transposed
    # A product takes [KB, N].
    return MatrixView(array, rows, blocks, blocks if transposed else rows, transposed=not transposed)


def _summed(sums: ir.Node) -> ir.Value | None:
    """Return the activations [B, S, K] whose blocks a ReduceSum over the last axis of [B, S, KB, block] adds up.

    Zeros that fill the last block change no sum.
    """
    value = sums.inputs[0]
    for kind in ("Reshape", "Pad"):
        node = value.producer() if value is not None else None
        if node is not None and node.op_type == kind:
            value = node.inputs[0]
    return value


def looked_up_offsets(rows: ir.Value, ids: ir.Value | None, count: int, blocks: int, folder: Path) -> MatrixView | None:
    """Return the offsets [V, KB] that are looked up and added to the blocks of an embedding's rows, if any are.

    Raises:
        UnsupportedUse: they are looked up by other ids.
    """
    users = [use.node for use in rows.uses()]
    if len(users) != 1 or users[0].op_type != "Add":
        return None
    value = next((one for one in users[0].inputs if one is not None and one is not rows), None)
    while value is not None and (node := value.producer()) is not None and node.op_type != "Gather":
        if node.op_type not in ("Unsqueeze", "Cast"):
            raise UnsupportedUse(f"{node.op_type} computes what is added to the embedding's rows")
        value = node.inputs[0]
    gather = value.producer() if value is not None else None
    if gather is None:
        return None
    if gather.inputs[1] is not ids:
        raise UnsupportedUse("the offsets of the embedding are looked up by other ids")
    array, transposed = initializer(gather.inputs[0], folder)
    check_count(array, count * blocks, "offsets")
    if transposed or attribute(gather, "axis", 0) != 0:
        raise UnsupportedUse("the offsets of the embedding are not looked up by row")
    return MatrixView(array, count, blocks, blocks)
