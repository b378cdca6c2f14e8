"""Chat templates rewritten so that everything in them that repeats or grows is charged to the budget.

Jinja evaluates some things without asking its environment: loops, comparisons, ``~``, literals, slices. In the parsed
template these get a filter of ours around them, under names that no template can spell.
"""

from collections.abc import Callable
from typing import Any, cast

from jinja2 import TemplateAssertionError, nodes
from jinja2.visitor import NodeTransformer

from .budget import current

STEP, SIZED, SHALLOW = "\0step", "\0sized", "\0shallow"
NODES_A_STEP = 8  # so many nodes of a loop's body take about as long as one charge


def step(cost: tuple[int, int]) -> bool:
    """One round of a loop, one call of a macro: steps and characters."""
    current.get().spend(*cost)
    return True


def sized(value: Any) -> Any:
    """The value itself, once its whole size is paid."""
    current.get().charge(value)
    return value


def shallow(value: Any) -> Any:
    """As ``sized`` for a copy that holds the same items: a slice."""
    count = len(value) if hasattr(value, "__len__") else 0
    current.get().spend(0 if isinstance(value, str) else count, count if isinstance(value, str) else 0)
    return value


FILTERS = {STEP: step, SIZED: sized, SHALLOW: shallow}


class Metering(NodeTransformer):
    """Puts the charges into a parsed template."""

    def visit(self, node: nodes.Node, *_: Any, **__: Any) -> nodes.Node:
        rule = next((rule for kind, rule in RULES.items() if isinstance(node, kind)), None)
        cost = _cost(node) if isinstance(node, BODIES) else None
        self.generic_visit(node)
        if cost is not None:
            return _counted(node, cost)
        return rule(node) if rule else node


def _counted(node: Any, cost: nodes.Const) -> nodes.Node:
    """A loop, macro or block whose every round is paid first."""
    if isinstance(node, nodes.For) and node.test is not None:  # asked for items, too, that the body never sees
        node.test = nodes.And(_filter(cost, STEP), node.test, lineno=node.lineno)
    node.body = [nodes.ExprStmt(_filter(cost, STEP), lineno=node.lineno), *node.body]
    return cast(nodes.Node, node)


def _concat(node: nodes.Concat) -> nodes.Node:
    node.nodes = [_filter(part, SIZED) for part in node.nodes]
    return node


def _compare(node: nodes.Compare) -> nodes.Node:
    node.expr = _filter(node.expr, SIZED)
    for operand in node.ops:
        operand.expr = _filter(operand.expr, SIZED)
    return node


def _getitem(node: nodes.Getitem) -> nodes.Node:
    if isinstance(node.arg, nodes.Slice):
        return _filter(node, SHALLOW)
    if not isinstance(node.arg, nodes.Const):  # a key is hashed, with all that it holds
        node.arg = _filter(node.arg, SIZED)
    return node


def _literal(node: nodes.List | nodes.Dict | nodes.Tuple) -> nodes.Node:
    """Values in values double with every line of a template, and so would the time to print or compare them."""
    return node if isinstance(node, nodes.Tuple) and node.ctx != "load" else _filter(node, SIZED)


def _load(node: nodes.Node) -> nodes.Node:
    raise TemplateAssertionError("a chat template cannot load other templates", node.lineno or 0)


BODIES = (nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)
RULES: dict[Any, Callable[[Any], nodes.Node]] = {
    nodes.Concat: _concat,
    nodes.Compare: _compare,
    nodes.Getitem: _getitem,
    (nodes.List, nodes.Dict, nodes.Tuple): _literal,
    (nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport): _load,
}


def _filter(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _cost(node: nodes.Node) -> nodes.Const:
    """What one round of a body takes: its nodes, and the text that stands in it."""
    inside = list(node.find_all(nodes.Node))
    text = sum(len(part.data) for part in inside if isinstance(part, nodes.TemplateData))
    return nodes.Const((1 + len(inside) // NODES_A_STEP, text), lineno=node.lineno)
