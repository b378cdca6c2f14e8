"""An artifact's graph against the rules and kernels of each device, node by node; no device is needed."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..artifact import FloatPrecision, Manifest
from ..contract import ACTIVATIONS, JOIN_BITS, LOGITS_TO_KEEP
from ..runtime.graph.graph import (
    ATTRIBUTE_NAME,
    GRAPH_INITIALIZER,
    GRAPH_INPUT,
    MICROSOFT,
    MODEL_GRAPH,
    TENSOR_DATA_TYPE,
    TENSOR_NAME,
    TYPE_TENSOR,
    TYPE_TENSOR_ELEMENT,
    VALUE_NAME,
    VALUE_TYPE,
    Graph,
    Node,
)
from ..runtime.graph.wire import integers, texts
from .expert_rules import Experts, SeparateExperts
from .findings import Finding, findings
from .kernels import CONTROL_FLOW, INTEGERS, MS, has_kernel
from .presets import DeviceName
from .rules import Attention, Lookup, MatMul, Whole, shortest_window

MODEL_OPSETS, OPSET_DOMAIN, OPSET_VERSION = 8, 1, 2  # fields of onnx.proto
ELEMENTS = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 16: "bfloat16"}
ELEMENTS |= {21: "uint4", 22: "int4"}
QMOE_ZERO_POINTS, QMOE_ROUTER_WEIGHTS = (11, 12, 13), 14
"""Inputs of QMoE."""
_BOOLEAN = frozenset({b"And", b"Equal", b"Less", b"LessOrEqual", b"Not", b"Or"})


@dataclass(frozen=True)
class Placement:
    """Where a graph's nodes run: how many of each operator have no kernel on the device.

    ``floats`` are those that compute with activations, ``others`` those of masks, positions and shapes.
    """

    floats: dict[str, int]
    others: dict[str, int]


class GraphFacts:
    """What the rules ask of a graph.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a graph.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        model = path.read_bytes()
        graphs = texts(model, MODEL_GRAPH)
        if len(graphs) != 1:
            raise ValueError("a model has one graph")
        graph = Graph(graphs[0])
        versions = [
            version
            for entry in texts(model, MODEL_OPSETS)
            if texts(entry, OPSET_DOMAIN) in ([], [b""], [b"ai.onnx"])
            for version in integers(entry, OPSET_VERSION)
        ]
        self.opset = max(versions, default=0)
        stored = {
            name: tensor for tensor in texts(graph.rest, GRAPH_INITIALIZER) for name in texts(tensor, TENSOR_NAME)
        }
        self._constants = frozenset(stored)
        self._joined = {name for node in graph.nodes if _joins(node) for name in node.outputs}
        self._nodes = [node for node in graph.nodes if not _joins(node)]  # computed when the graph is loaded
        self._elements = {name: _element(integers(tensor, TENSOR_DATA_TYPE)) for name, tensor in stored.items()}
        inputs = {name: value for value in texts(graph.rest, GRAPH_INPUT) for name in texts(value, VALUE_NAME)}
        for name, value in inputs.items():
            kinds = [tensor for kind in texts(value, VALUE_TYPE) for tensor in texts(kind, TYPE_TENSOR)]
            self._elements[name] = _element(integers(kinds[0], TYPE_TENSOR_ELEMENT) if kinds else [])
        keep = LOGITS_TO_KEEP.encode()
        self.activations: FloatPrecision = ACTIVATIONS[manifest.model.cache_dtype]
        self.whole = Whole(
            manifest.task,
            manifest.target,
            manifest.precision,
            self.activations,
            causal=manifest.model.causal,
            window=shortest_window(manifest.model.layer_windows, manifest.model.context_length),
            opset=self.opset,
            integer=any(node.is_a(b"MatMulIntegerToFloat", MICROSOFT) for node in graph.nodes),
            optional_input=keep in inputs and keep in stored,
        )
        self.matmuls = [self._matmul(node) for node in graph.nodes if node.is_a(b"MatMulNBits", MICROSOFT)]
        self.attentions = [
            Attention(packed_qkv=not node.input(1), rotates=_integer(node, b"do_rotary", 0) == 1)
            for node in graph.nodes
            if node.is_a(b"GroupQueryAttention", MICROSOFT)
        ]
        self.lookups = [
            Lookup(scales_are_stored=node.input(2) in self._constants)
            for node in graph.nodes
            if node.is_a(b"GatherBlockQuantized", MICROSOFT)
        ]
        self.experts = [
            self._experts(node) for node in graph.nodes if node.domain == MICROSOFT and node.kind in (b"MoE", b"QMoE")
        ]
        routed = sum(node.kind == b"NonZero" and not node.domain for node in graph.nodes)
        self.separate = [SeparateExperts(routed)] if routed else []

    def findings(self, device: DeviceName) -> list[Finding]:
        """Return the rules of a device that the graph does not satisfy, most serious first."""
        return findings(device, self.whole, self.matmuls, self.attentions, self.lookups, self.experts, self.separate)

    def placement(self, device: DeviceName) -> Placement:
        """Return the nodes that run on the CPU, since the device has no kernel for them."""
        floats, others = Counter[str](), Counter[str]()
        for operator, element in self.operators():
            if not has_kernel(device, operator, element, self.opset):
                (others if element in INTEGERS or element == "bool" else floats)[operator] += 1
        lookups = floats.pop(f"{MS}GatherBlockQuantized", 0)
        if lookups:  # they take token ids and uint8, and stand before all else
            others[f"{MS}GatherBlockQuantized"] += lookups
        return Placement(dict(floats), dict(others))

    def cuda_graph_obstacles(self) -> list[str]:
        """Return what keeps CUDA from capturing the graph: nodes on the CPU, sizes read there, and graphs inside nodes.

        Source: onnxruntime.ai, CUDA Execution Provider, "Using CUDA Graphs": all compute nodes are on CUDA, and there
        is no If, Loop or Scan.
        """
        placement = self.placement("cuda")
        found = [f"{name} runs on the CPU" for name in sorted(placement.floats | placement.others)]
        if self.separate:
            found.append("NonZero copies a number to the CPU")
        return found + sorted({f"{name} has a graph inside" for name, _ in self.operators() if name in CONTROL_FLOW})

    def operators(self) -> Iterator[tuple[str, str | None]]:
        """Yield each node's operator and the element type of its first input, as far as it is known."""
        elements = dict(self._elements)
        for node in self._nodes:
            name = node.kind.decode(errors="replace")
            operator = f"{node.domain.decode(errors='replace')}::{name}" if node.domain else name
            first = elements.get(node.input(0))
            yield operator, first
            for output in node.outputs:
                elements[output] = _output_element(node, elements)

    def _experts(self, node: Node) -> Experts:
        quantized = node.kind == b"QMoE"
        return Experts(
            node.kind.decode(),
            activations=self.activations,
            zero_points=quantized and any(node.input(index) for index in QMOE_ZERO_POINTS),
            router_weights=quantized and bool(node.input(QMOE_ROUTER_WEIGHTS)),
            raw_weights=_integer(node, b"weights_prepacked", -1) == 0,
        )

    def _matmul(self, node: Node) -> MatMul:
        return MatMul(
            _integer(node, b"bits", 4),
            _integer(node, b"block_size", 32),
            _integer(node, b"N", 0),
            _integer(node, b"K", 0),
            activations=self.activations,
            symmetric=not node.input(3),
            bias=bool(node.input(5)),
            accuracy_level=_integer(node, b"accuracy_level", 0),
            scales_are_stored=node.input(2) in self._constants,
            joined=node.input(1) in self._joined,
        )


def _joins(node: Node) -> bool:
    """Return True for a node that joins the parts of weights of 5 bits."""
    return node.is_a(JOIN_BITS[1].encode(), JOIN_BITS[0].encode())


def _integer(node: Node, name: bytes, default: int) -> int:
    return (node.integers(name) or [default])[0]


def _element(numbers: list[int]) -> str | None:
    return ELEMENTS.get(numbers[0]) if numbers else None


def _output_element(node: Node, elements: dict[bytes, str | None]) -> str | None:
    """Return the element type of a node's first output, by the rules of the operators that the exporter writes."""
    if node.kind == b"Cast":
        return _element(node.integers(b"to"))
    if node.kind in _BOOLEAN:
        return "bool"
    if node.kind in (b"Shape", b"ArgMax"):
        return "int64"
    if node.kind == b"Where":
        return elements.get(node.input(1))
    if node.kind in (b"GatherBlockQuantized", b"DequantizeLinear", b"MatMulIntegerToFloat"):
        return elements.get(node.input(2 if node.kind != b"DequantizeLinear" else 1))
    if node.kind == b"QuantizeLinear":
        return elements.get(node.input(2))
    if node.kind == b"Constant":
        names = [name for attribute in node.attributes for name in texts(attribute, ATTRIBUTE_NAME)]
        return "int64" if names in ([b"value_int"], [b"value_ints"]) else None
    return elements.get(node.input(0))
