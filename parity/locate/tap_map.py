"""Where a graph computes the taps of each layer.

A tap is found by the module path that every node carries, whatever operators the target or the quantization uses: it
is the value that leaves the nodes of that path.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from ...artifact import Manifest, Task
from ...contract import INPUT_IDS, MODULE_KEY
from ...models.config import ModelConfig
from ...models.family import FAMILIES
from ...models.heads import trunk_path
from .taps import HIDDEN, MIDDLE, OUT, Tap, residual_sums, taps_of

SUM = ":sum"
"""Suffix of the node that adds to the residual stream, where a fused norm was split into a sum and a norm."""


@dataclass(frozen=True)
class GraphTap:
    """A tap in a graph: the output ``value`` of ``node``.

    Args:
        columns: the part of the value's last dimension that belongs to the tap; None for all of it.
        missing: the graph has no such node; ``value`` is that of the tap before it.
    """

    value: ir.Value
    node: ir.Node
    columns: slice | None = None
    missing: bool = False


class TapMap:
    """The taps of a graph, by layer and key.

    ``embedding`` is the input of the first layer and ``norm`` the final norm's output.
    """

    def __init__(self, graph: ir.Graph, config: ModelConfig, task: Task) -> None:
        self.config = config
        self._sum_of = residual_sums(FAMILIES[config.family])
        self.trunk = trunk_path(task)
        self._nodes: dict[str, list[ir.Node]] = {}
        for node in graph:
            self._nodes.setdefault(module_path(node), []).append(node)
        sums = self._residual_sums(graph)
        self.embedding = self._find_embedding(graph)
        self.layers: list[dict[str, GraphTap]] = []
        hidden = self.embedding
        for layer in range(config.num_hidden_layers):
            self.layers.append(self._find_layer(layer, hidden, sums))
            hidden = self.layers[-1].get(OUT)
        self.norm = self._output_of(f"{self.trunk}norm")

    def taps(self, layer: int) -> tuple[Tap, ...]:
        """Return the taps of a layer in the order of execution."""
        experts = self.config.experts
        return taps_of(FAMILIES[self.config.family], mixes=experts is not None and experts.layers[layer])

    def path(self, layer: int, key: str = "") -> str:
        """Return the module path of a tap in the native definition."""
        path = f"{self.trunk}layers.{layer}"
        return path if key in ("", HIDDEN, MIDDLE, OUT) else f"{path}.{key}"

    def _find_embedding(self, graph: ir.Graph) -> GraphTap | None:
        """Return the first layer's input, by the embedding's path or, where its nodes have none, by its users."""
        tap = self._output_of(f"{self.trunk}embed_tokens")
        if tap is not None and any(
            value is not None and value.name == INPUT_IDS
            for node in ancestors(tap.value, set())
            for value in node.inputs
        ):
            return tap
        prefix = f"{self.trunk}layers."
        for node in graph:
            if module_path(node).startswith(f"{prefix}0."):
                for value in node.inputs:
                    producer = value.producer() if value is not None else None
                    if value is not None and producer is not None and not module_path(producer).startswith(prefix):
                        return GraphTap(value, producer)
        return None

    def _find_layer(
        self, layer: int, hidden: GraphTap | None, sums: Mapping[tuple[int, str], GraphTap]
    ) -> dict[str, GraphTap]:
        found = {} if hidden is None else {HIDDEN: hidden}
        for tap in self.taps(layer):
            if tap.kind == "residual":
                graph_tap = sums.get((layer, tap.key))
            else:
                graph_tap = self._output_of(self.path(layer, tap.key)) or self._packed(layer, tap.key)
            if graph_tap is None and tap.inputs[-1] in found:
                graph_tap = replace(found[tap.inputs[-1]], missing=True)
            if graph_tap is not None:
                found[tap.key] = graph_tap
        return found

    def _packed(self, layer: int, key: str) -> GraphTap | None:
        """Return one of the q, k and v projections where their weights are packed into one."""
        config = self.config
        query, one = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
        columns = {
            "self_attn.q_proj": slice(0, query),
            "self_attn.k_proj": slice(query, query + one),
            "self_attn.v_proj": slice(query + one, query + 2 * one),
        }.get(key)
        packed = self._output_of(self.path(layer, "self_attn.qkv_proj")) if columns else None
        return packed and replace(packed, columns=columns)

    def _output_of(self, path: str) -> GraphTap | None:
        """Return the first output of the last node of a path that other nodes use."""
        nodes = self._nodes.get(path, [])
        inside = set(nodes)
        for node in reversed(nodes):
            value = node.outputs[0]
            if value.is_graph_output() or any(user not in inside for user, _ in value.uses()):
                return GraphTap(value, node)
        return None

    def _residual_sums(self, graph: ir.Graph) -> dict[tuple[int, str], GraphTap]:
        """Return the residual sums, by layer and key."""
        found: dict[tuple[int, str], GraphTap] = {}
        sums: set[ir.Value] = set()
        prefix = f"{self.trunk}layers."
        for node in graph:
            split = (node.name or "").endswith(SUM)
            if node.op_type != "Add" and not split:
                continue
            value = node.outputs[3 if split else 0]
            layers: dict[str, int] = {}
            for operand in node.inputs[:2]:
                producer = operand.producer() if operand is not None and operand not in sums else None
                path = module_path(producer)
                layer, _, key = path.removeprefix(prefix).partition(".")
                if key in self._sum_of and layer.isdigit() and module_path(node) != path:
                    layers[self._sum_of[key]] = int(layer)
            if layers:
                key = OUT if OUT in layers else MIDDLE
                found.setdefault((layers[key], key), GraphTap(value, node))
                sums.add(value)
        return found


def module_path(node: ir.Node | None) -> str:
    """Return the module path in a node's metadata; empty where it has none."""
    return node.metadata_props.get(MODULE_KEY, "") if node is not None else ""


def ancestors(value: ir.Value, cuts: set[ir.Value]) -> Iterator[ir.Node]:
    """Yield the nodes that compute ``value``, back to the values ``cuts``."""
    seen: set[ir.Node] = set()
    pending = [value.producer()]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        pending += [operand.producer() for operand in node.inputs if operand is not None and operand not in cuts]


def tensors_of(value: ir.Value, cuts: set[ir.Value], manifest: Manifest) -> tuple[str, ...]:
    """Return the names of the stored tensors that ``value`` is computed from, back to the values ``cuts``."""
    operands = {v.name: v for node in ancestors(value, cuts) for v in node.inputs if v is not None}
    names = ((name or "").removesuffix(".pairs") for name, operand in operands.items() if operand.is_initializer())
    return tuple(dict.fromkeys(name for name in names if name in manifest.tensors))
