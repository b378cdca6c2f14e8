"""Rewrite a parsed chat template so that all work that repeats or grows is charged to the budget.

Jinja evaluates loops, comparisons, ``~``, literals and slices without calling its environment. The rewritten template
wraps them in filters that charge. A template cannot use these filters itself: their names start with a NUL character.
"""

from collections.abc import Callable
from typing import Any, cast

from jinja2 import TemplateAssertionError, nodes
from jinja2.visitor import NodeTransformer

from .budget import current

STEP, SIZED, SHALLOW = "\0step", "\0sized", "\0shallow"
NODES_PER_STEP = 8  # nodes of a loop's body that take about as long as one charge


def step(cost: tuple[int, int]) -> bool:
    """Charge one iteration of a loop or one call of a macro: ``cost`` is (steps, characters)."""
    current.get().spend(*cost)
    return True


def sized(value: Any) -> Any:
    """Charge the whole size of a value; return the value."""
    current.get().charge(value)
    return value


def shallow(value: Any) -> Any:
    """Charge a slice, whose items are references; return it."""
    count = len(value) if hasattr(value, "__len__") else 0
    current.get().spend(0 if isinstance(value, str) else count, count if isinstance(value, str) else 0)
    return value


FILTERS = {STEP: step, SIZED: sized, SHALLOW: shallow}


class Metering(NodeTransformer):
    """Inserts the charges into a parsed template."""

    def visit(self, node: nodes.Node, *_: Any, **__: Any) -> nodes.Node:
        rule = next((rule for kind, rule in RULES.items() if isinstance(node, kind)), None)
        cost = _cost(node) if isinstance(node, BODIES) else None
        self.generic_visit(node)
        if cost is not None:
            return _charge_body(node, cost)
        return rule(node) if rule else node


def _charge_body(node: Any, cost: nodes.Const) -> nodes.Node:
    """Charge each execution of the body of a loop, macro or block before it runs."""
    if isinstance(node, nodes.For) and node.test is not None:  # evaluated for every item, also for those that it skips
        node.test = nodes.And(_filter(cost, STEP), node.test, lineno=node.lineno)
    node.body = [nodes.ExprStmt(_filter(cost, STEP), lineno=node.lineno), *node.body]
    return cast(nodes.Node, node)


def _concat(node: nodes.Concat) -> nodes.Node:
    node.nodes = [_filter(operand, SIZED) for operand in node.nodes]
    return node


def _compare(node: nodes.Compare) -> nodes.Node:
    node.expr = _filter(node.expr, SIZED)
    for operand in node.ops:
        operand.expr = _filter(operand.expr, SIZED)
    return node


def _getitem(node: nodes.Getitem) -> nodes.Node:
    if isinstance(node.arg, nodes.Slice):
        return _filter(node, SHALLOW)
    if not isinstance(node.arg, nodes.Const):  # hashing a key reads everything in it
        node.arg = _filter(node.arg, SIZED)
    return node


def _literal(node: nodes.List | nodes.Dict | nodes.Tuple) -> nodes.Node:
    """Charge a literal: nested in each other, literals can double a value's size with every line of the template."""
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
    """Return the cost of one execution of a body: steps for its nodes, characters for its literal text."""
    inside = list(node.find_all(nodes.Node))
    text = sum(len(found.data) for found in inside if isinstance(found, nodes.TemplateData))
    return nodes.Const((1 + len(inside) // NODES_PER_STEP, text), lineno=node.lineno)
