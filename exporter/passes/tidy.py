"""Node names by the module path in ``models/``; everything else that tracing left is removed."""

from collections import Counter

import onnx_ir as ir

from ...contract import MODULE_KEY
from ..graph import ExportGraph
from ..instantiate import module_path
from ..lowering.nodes import NAME


def tidy(graph: ExportGraph) -> int:
    """Name each node ``<module path>/<operator>`` and its outputs after it; return the number of nodes.

    A node keeps the name that its lowering gave it.
    """
    model = graph.model
    seen: Counter[str] = Counter()
    fixed = {value.name for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values())}
    for node in model.graph:
        path = module_path(node).partition(".")[2] if module_path(node) else ""
        base = node.metadata_props.get(NAME) or (f"{path}/{node.op_type}" if path else node.op_type)
        seen[base] += 1
        node.name = base if seen[base] == 1 else f"{base}_{seen[base]}"
        node.metadata_props.clear()
        node.metadata_props[MODULE_KEY] = path
        node.doc_string = None
        for index, value in enumerate(node.outputs):
            value.metadata_props.clear()
            if value.name != "" and (value.name is None or value.name not in fixed):
                value.name = f"{node.name}:{index}" if len(node.outputs) > 1 else f"{node.name}:out"
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    streamed = {*graph.streams, *graph.aliases}
    constants = [v for v in model.graph.initializers.values() if v.name not in streamed and not v.is_graph_input()]
    for number, value in enumerate(constants):
        value.name = f"constant_{number}"
    _declare_used_domains(model)
    return sum(seen.values())


def _declare_used_domains(model: ir.Model) -> None:
    used = {node.domain for node in model.graph} | {""}
    for domain in [d for d in model.graph.opset_imports if d not in used]:
        del model.graph.opset_imports[domain]
    if "com.microsoft" in used:
        model.graph.opset_imports["com.microsoft"] = 1
