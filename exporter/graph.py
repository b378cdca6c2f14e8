"""A graph before it is written: the model, and a stream for each of its weights."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .weights import Recipe, Stream


@dataclass
class ExportGraph:
    """A model whose weights are not in it yet.

    ``streams`` has one entry, by name, for every initializer without a value of its own, in the order of the weights'
    file. Initializers that share the bytes of another one are in ``aliases`` instead, with the other's name.
    """

    model: ir.Model
    streams: dict[str, Stream] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def recipe_of(self, value: ir.Value | None) -> Recipe | None:
        """Return the recipe of a weight; None for anything else."""
        if value is None or not value.is_initializer():
            return None
        stream = self.streams.get(value.name or "")
        return None if stream is None else stream.recipe

    def nodes(self, op_type: str) -> Iterator[ir.Node]:
        """Iterate over the nodes of a type; the graph may change meanwhile."""
        return iter([node for node in self.model.graph if node.op_type == op_type])

    def add_weight(self, name: str, stream: Stream, type: ir.TypeProtocol | None) -> ir.Value:
        """Add a weight."""
        weight = ir.Value(name=name, type=type, shape=ir.Shape(stream.shape))
        self.model.graph.initializers.add(weight)
        self.streams[name] = stream
        return weight

    def alias(self, weight: ir.Value, name: str, shape: tuple[int, ...]) -> ir.Value:
        """Add a weight that has the bytes of another one in another shape."""
        assert weight.name is not None
        value = ir.Value(name=name, type=weight.type, shape=ir.Shape(shape))
        self.model.graph.initializers.add(value)
        self.aliases[name] = weight.name
        return value

    def constant(self, value: np.generic | NDArray[np.generic]) -> ir.Value:
        """Return a constant of the value's own element type, stored in the graph's file; equal ones are shared."""
        wanted = ir.tensor(np.asarray(value), name=f"constant {value.dtype} {value.tolist()}")
        for known in self.model.graph.initializers.values():
            held = known.const_value
            if held is None or known.is_graph_input() or held.dtype != wanted.dtype or held.shape != wanted.shape:
                continue
            if np.array_equal(held.numpy(), value):
                return known
        constant = ir.Value(
            name=wanted.name, type=ir.TensorType(wanted.dtype), shape=ir.Shape(value.shape), const_value=wanted
        )
        self.model.graph.initializers.add(constant)
        return constant

    def replace_output(self, old: ir.Value, new: ir.Value) -> None:
        """Use ``new`` wherever ``old`` is used, also as an output of the graph."""
        new.type, new.shape = old.type, old.shape
        if old.is_graph_output():
            new.name, old.name = old.name, None
        old.replace_all_uses_with(new, replace_graph_outputs=True)

    def drop_unused_weights(self) -> None:
        """Remove the weights that no node takes; where an alias of one is taken, the alias becomes the weight."""
        initializers = self.model.graph.initializers
        for name in [n for n, value in initializers.items() if not value.uses() and not value.is_graph_input()]:
            del initializers[name]
            stream = self.streams.pop(name, None)
            other = next((alias for alias, original in self.aliases.items() if original == name), None)
            if stream is not None and other is not None:
                del self.aliases[other]
                self.streams[other] = stream
