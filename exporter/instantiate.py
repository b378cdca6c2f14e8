"""Repeat the layers of a shallow traced graph to the depth of the model.

A node's layer is in the module path that torch leaves on it. A layer's inputs from outside are shared by all layers
(angles, masks, lengths: computed before the layers), its own by name (weights, past), or the hidden state: the one
value that the layer before it, or the embedding, computes.
"""

import ast
import re
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from ..contract import PAST, PRESENT

EMBEDDING = "embed_tokens"
SCOPES = "pkg.torch.onnx.name_scopes"
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)(?=\.|$)")
_NUMBERED = re.compile(rf"((?:^|\.)layers\.|^{re.escape(PAST)}|^{re.escape(PRESENT)})(\d+)(?=\.|$)")


def module_path(node: ir.Node) -> str:
    """Return the path of a node's module, as ``head.model.layers.0.self_attn``; an empty one at the top."""
    scopes: list[str] = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
    # The list runs from the root through each module to the node itself.
    return scopes[-2] if len(scopes) > 1 and scopes[0] == "" else ""


def instantiate(model: ir.Model, templates: Sequence[int]) -> ir.Model:
    """Return a graph as deep as ``templates`` is long, in which layer i is a copy of traced layer ``templates[i]``.

    Names that carry a layer's number (module paths, initializers, past and present) are renumbered.
    """
    return _Instantiation(model, templates).model


def _layer_of(node: ir.Node) -> int | None:
    found = _LAYER.search(module_path(node))
    return int(found[1]) if found else None


def _renumber(name: str | None, layer: int) -> str:
    assert name is not None
    return _NUMBERED.sub(rf"\g<1>{layer}", name)


class _Instantiation:
    def __init__(self, model: ir.Model, templates: Sequence[int]) -> None:
        old = model.graph
        self.outputs = set(old.outputs)
        self.external: dict[str, ir.Value] = {}  # inputs and initializers of the new graph, by name
        self.initializers: list[ir.Value] = []
        self.shared: dict[ir.Value, ir.Value] = {}  # values outside the layers, old to new
        self.nodes: list[ir.Node] = []

        prologue, blocks, epilogue = _split(old, max(templates) + 1)
        # The hidden state at the input and at the output of each traced layer.
        leaves = [_crossing(block, after) for block, after in zip(blocks, [*blocks[1:], epilogue], strict=True)]
        embedding = [node for node in prologue if module_path(node).rpartition(".")[2] == EMBEDDING]
        enters = [_crossing(embedding, blocks[0]), *leaves[:-1]]

        inputs: list[ir.Value] = []
        past = [value for value in old.inputs if _NUMBERED.search(value.name or "")]
        for value in old.inputs:
            if value not in past:
                inputs.append(self._external(value, 0))
            elif value is past[0]:  # the pair of the first layer is the template of all
                inputs += [self._external(v, layer) for layer in range(len(templates)) for v in past[:2]]

        for node in prologue:
            self.shared.update(self._copy(node, {}, None))
        presents: list[ir.Value] = []
        hidden = self.shared[enters[0]]
        for layer, template in enumerate(templates):
            mapping = {enters[template]: hidden}
            for node in blocks[template]:
                copied = self._copy(node, mapping, layer)
                presents += [new for old_value, new in copied.items() if old_value in self.outputs]
                mapping |= copied
            hidden = mapping[leaves[template]]
        self.shared[leaves[-1]] = hidden
        for node in epilogue:
            self.shared.update(self._copy(node, {}, None))

        heads = [self.shared[value] for value in old.outputs if value in self.shared]
        graph = ir.Graph(
            inputs,
            [*heads, *presents],
            nodes=self.nodes,
            initializers=self.initializers,
            opset_imports=old.opset_imports,
            name="intaglio",
        )
        self.model = ir.Model(graph, ir_version=model.ir_version, producer_name="intaglio")

    def _external(self, value: ir.Value, layer: int) -> ir.Value:
        """Return the new graph's input or initializer for an old one, with the layer's number in its name."""
        name = _renumber(value.name, layer)
        if name not in self.external:
            new = ir.Value(name=name, type=value.type, shape=value.shape, const_value=value.const_value)
            self.external[name] = new
            if value.is_initializer():
                self.initializers.append(new)
        return self.external[name]

    def _copy(self, node: ir.Node, mapping: Mapping[ir.Value, ir.Value], layer: int | None) -> dict[ir.Value, ir.Value]:
        """Append a copy of the node; return its outputs, old to new."""

        def find(value: ir.Value | None) -> ir.Value | None:
            if value is None:
                return None
            return mapping.get(value) or self.shared.get(value) or self._external(value, layer or 0)

        scopes = node.metadata_props.get(SCOPES, "[]")
        if layer is not None:
            scopes = repr([_renumber(scope, layer) for scope in ast.literal_eval(scopes)])
        copy = ir.Node(
            node.domain,
            node.op_type,
            [find(value) for value in node.inputs],
            attributes=list(node.attributes.values()),
            num_outputs=len(node.outputs),
            metadata_props={**node.metadata_props, SCOPES: scopes},
        )
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.type, new.shape = old.type, old.shape
            if old in self.outputs:
                new.name = old.name if layer is None else _renumber(old.name or "", layer)
        self.nodes.append(copy)
        return dict(zip(node.outputs, copy.outputs, strict=True))


def _split(graph: ir.Graph, depth: int) -> tuple[list[ir.Node], list[list[ir.Node]], list[ir.Node]]:
    """Return the nodes before the layers, of each layer, and after the layers, in the graph's order."""
    prologue: list[ir.Node] = []
    blocks: list[list[ir.Node]] = [[] for _ in range(depth)]
    epilogue: list[ir.Node] = []
    behind: set[ir.Value] = set()
    for node in graph:
        layer = _layer_of(node)
        if layer is None and behind.isdisjoint(v for v in node.inputs if v is not None):
            prologue.append(node)
            continue
        (epilogue if layer is None else blocks[layer]).append(node)
        behind.update(node.outputs)
    return prologue, blocks, epilogue


def _crossing(block: Sequence[ir.Node], after: Sequence[ir.Node]) -> ir.Value:
    """Return the one value that the nodes ``after`` take from ``block``."""
    made = {value for node in block for value in node.outputs}
    crossing = {value for node in after for value in node.inputs if value in made}
    assert len(crossing) == 1, f"layers are connected by {len(crossing)} values, expected the hidden state alone"
    return crossing.pop()
