"""Transpose(weight) -> MatMul becomes MatMul with the weight stored transposed.

torch keeps a linear layer's weight as [N, K]. ONNX Runtime packs a MatMul's [K, N] best (on two cores a prefill is a
quarter faster than with transposed multiplication), and a weight that is stored transposed is not transposed at load.
"""

import onnx_ir as ir

from ..graph import ExportGraph
from ..weights import Stacked, Stored, Transposed


def fold_transpose(graph: ExportGraph) -> int:
    """Fold every transposed weight of a MatMul; return how many."""
    count = 0
    for node in graph.nodes("Transpose"):
        weight = node.inputs[0]
        recipe = graph.recipe_of(weight)
        users = [user for user, _ in node.outputs[0].uses()]
        if weight is None or not isinstance(recipe, Stored | Stacked) or any(u.op_type != "MatMul" for u in users):
            continue
        assert weight.name is not None
        transposed = Transposed(recipe)
        if len(weight.uses()) > 1:
            continue  # stored once for all its users
        node.outputs[0].replace_all_uses_with(weight)
        graph.model.graph.remove(node, safe=True)
        graph.streams[weight.name] = transposed.stream
        weight.shape = ir.Shape(transposed.shape)
        count += 1
    return count
