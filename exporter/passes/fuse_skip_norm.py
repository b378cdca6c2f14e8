"""Add -> SimplifiedLayerNormalization becomes SkipSimplifiedLayerNormalization, which returns the sum as well.

The pair is the pre-norm residual of Qwen2. It spans two layers, so the lowering cannot write it. (EXAONE 4.0 normalizes
a branch before it adds, so only its final norm matches.) ONNX Runtime's own fusion matches LayerNormalization only.
"""

import onnx_ir as ir

from ..graph import ExportGraph


def fuse_skip_norm(graph: ExportGraph) -> int:
    """Fuse every such pair; return how many."""
    count = 0
    for norm in graph.nodes("SimplifiedLayerNormalization"):
        total, weight = norm.inputs
        add = total.producer() if total is not None else None
        if total is None or add is None or add.op_type != "Add" or total.is_graph_output():
            continue
        left, right = add.inputs
        if left is None or right is None or not left.shape == right.shape == total.shape or len(left.shape or ()) != 3:
            continue
        fused = ir.Node(
            "com.microsoft",
            "SkipSimplifiedLayerNormalization",
            [left, right, weight],
            attributes=[ir.AttrFloat32("epsilon", norm.attributes["epsilon"].as_float())],
            num_outputs=4,
            metadata_props=dict(norm.metadata_props),
        )
        normed, mean, deviation, summed = fused.outputs
        mean.name = deviation.name = ""  # an empty name omits an optional output
        graph.model.graph.insert_after(add, fused)
        graph.replace_output(norm.outputs[0], normed)
        graph.replace_output(total, summed)
        if not summed.uses():
            summed.name = ""
        graph.model.graph.remove([norm, add], safe=True)
        count += 1
    return count
