"""A graph on its way to a file: the model, and for each of its weights the recipe that makes it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from .weights import Recipe


@dataclass
class Graph:
    """``recipes`` has one entry, by name, for every initializer that carries no value of its own."""

    model: ir.Model
    recipes: dict[str, Recipe] = field(default_factory=dict)

    def recipe_of(self, value: ir.Value | None) -> Recipe | None:
        """The recipe of a weight; None for anything else."""
        return None if value is None or not value.is_initializer() else self.recipes.get(value.name or "")

    def nodes(self, op_type: str) -> Iterator[ir.Node]:
        """The nodes of a type, safe against changes to the graph on the way."""
        return iter([node for node in self.model.graph if node.op_type == op_type])

    def replace_weight(self, old: ir.Value, name: str, recipe: Recipe) -> ir.Value:
        """A new weight beside ``old``, of the same element type; ``old`` goes when nothing uses it any more."""
        weight = ir.Value(name=name, type=old.type, shape=ir.Shape(recipe.shape))
        self.model.graph.initializers.add(weight)
        self.recipes[name] = recipe
        return weight

    def drop_unused_weights(self) -> None:
        """Forget the weights that no node takes."""
        initializers = self.model.graph.initializers
        for name in [n for n, value in initializers.items() if not value.uses() and not value.is_graph_input()]:
            del initializers[name]
            self.recipes.pop(name, None)
