"""Node names by the module path in ``models/``; everything else that tracing left is removed."""

from collections import Counter
from collections.abc import Mapping

import onnx_ir as ir

from ...contract import MODULE_KEY
from ..graph import ExportGraph
from ..instantiate import module_path
from ..lowering.nodes import NAME


def tidy(graph: ExportGraph, projection: str) -> int:
    """Name each node ``<module path>/<operator>`` and its outputs after it; return the number of nodes.

    A node keeps the name that its lowering gave it. Of the nodes outside of every module, those before the layers are
    named after the graph's input that they read, as ``attention_mask/Shape``, and those after the layers belong to the
    task's ``projection``, an empty path where the task has none: all such nodes are then the model's, ``model/Shape``.
    Constants, which modules share, are ``constant_<number>``.
    """
    model = graph.model
    seen: Counter[str] = Counter()
    inputs: dict[ir.Node, str] = {}  # the graph's input that a node outside of every module reads
    fixed = {value.name for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values())}
    for node in model.graph:
        path = module_path(node).partition(".")[2]
        owner = path
        if not path and projection:
            owner = inputs[node] = _input_of(node, inputs)
            path = "" if owner else projection
        base = node.metadata_props.get(NAME) or f"{owner or path or 'model'}/{node.op_type}"
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


def _input_of(node: ir.Node, inputs: Mapping[ir.Node, str]) -> str:
    """Return the graph's input that a node reads, by itself or through one of the nodes in ``inputs``; or ""."""
    for value in node.inputs:
        if value is not None and value.is_graph_input():
            return value.name or ""
    producers = [value.producer() for value in node.inputs if value is not None]
    return inputs.get(producers[0], "") if producers and producers[0] is not None else ""


def _declare_used_domains(model: ir.Model) -> None:
    used = {node.domain for node in model.graph} | {""}
    for domain in [d for d in model.graph.opset_imports if d not in used]:
        del model.graph.opset_imports[domain]
    if "com.microsoft" in used:
        model.graph.opset_imports["com.microsoft"] = 1
