"""A graph on its way to a file: the model, and for each of its weights the recipe that makes it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .weights import Recipe


@dataclass
class Graph:
    """``recipes`` has one entry, by name, for every initializer that carries no value of its own, unless it shares the
    bytes of another: ``aliases`` has the other's name."""

    model: ir.Model
    recipes: dict[str, Recipe] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def recipe_of(self, value: ir.Value | None) -> Recipe | None:
        """The recipe of a weight; None for anything else."""
        return None if value is None or not value.is_initializer() else self.recipes.get(value.name or "")

    def nodes(self, op_type: str) -> Iterator[ir.Node]:
        """The nodes of a type, safe against changes to the graph on the way."""
        return iter([node for node in self.model.graph if node.op_type == op_type])

    def add_weight(self, name: str, recipe: Recipe, type: ir.TypeProtocol | None) -> ir.Value:
        """A new weight."""
        weight = ir.Value(name=name, type=type, shape=ir.Shape(recipe.shape))
        self.model.graph.initializers.add(weight)
        self.recipes[name] = recipe
        return weight

    def alias(self, weight: ir.Value, name: str, shape: tuple[int, ...]) -> ir.Value:
        """The same bytes of the file under another shape."""
        assert weight.name is not None
        value = ir.Value(name=name, type=weight.type, shape=ir.Shape(shape))
        self.model.graph.initializers.add(value)
        self.aliases[name] = weight.name
        return value

    def constant(self, value: np.generic | NDArray[np.generic]) -> ir.Value:
        """A number, or a few, of their own element type, as part of the graph's file; equal ones are one."""
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
        """Let ``new`` stand wherever ``old`` did, as an output of the graph too."""
        new.type, new.shape = old.type, old.shape
        if old.is_graph_output():
            new.name, old.name = old.name, None
        old.replace_all_uses_with(new, replace_graph_outputs=True)

    def drop_unused_weights(self) -> None:
        """Forget the weights that no node takes; one whose bytes are taken under another shape goes by that name."""
        initializers = self.model.graph.initializers
        for name in [n for n, value in initializers.items() if not value.uses() and not value.is_graph_input()]:
            del initializers[name]
            recipe = self.recipes.pop(name, None)
            other = next((alias for alias, original in self.aliases.items() if original == name), None)
            if recipe is not None and other is not None:
                del self.aliases[other]
                self.recipes[other] = recipe
