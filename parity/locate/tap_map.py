"""The places of a layer where its numbers can be compared, and where a graph has them.

A place is the output of a module or of an operator in the native definition. In a graph it is found by the module path
that every node carries, whatever operators the target or the quantization made of it: what leaves the nodes of a path.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from ...artifact import Manifest, Task
from ...contract import INPUT_IDS, MODULE_KEY
from ...models.config import ModelConfig
from ...models.family import FAMILIES, GATE_UP, QKV, Family
from ...models.heads import TRUNK_ATTRIBUTE

SUM = ":sum"
"""What a node that adds to the residual stream has at the end of its name, where another half of it normalizes."""

Kind = Literal["norm", "projection", "attention", "activation", "residual"]
HIDDEN, MIDDLE, OUT = "hidden", "middle", "out"
"""The residual stream in front of a layer, between its halves, and behind it."""


@dataclass(frozen=True)
class Place:
    """``key`` is a module's path inside the layer, or MIDDLE or OUT; ``takes`` the keys of what it is computed from.

    ``seen`` says where a forward hook sees the value: at the output of a module of the layer, or at its input.
    """

    key: str
    takes: tuple[str, ...]
    kind: Kind
    seen: tuple[Literal["output", "input"], str]

    @property
    def module(self) -> str:
        """The path inside the layer that a reader can look up; empty for the layer itself."""
        return "" if self.key in (MIDDLE, OUT) else self.key


def _module(kind: Kind, key: str, *takes: str) -> Place:
    return Place(key, takes, kind, ("output", key))


def _mlp(given: str) -> tuple[Place, ...]:
    return (
        *(_module("projection", name, given) for name in GATE_UP),
        Place("mlp", GATE_UP, "activation", ("input", "mlp.down_proj")),
        _module("projection", "mlp.down_proj", "mlp"),
    )


def _attention(given: str, head_norms: bool) -> tuple[Place, ...]:
    query, key, value = QKV
    norms: tuple[Place, ...] = ()
    if head_norms:
        norms = (_module("norm", "self_attn.q_norm", query), _module("norm", "self_attn.k_norm", key))
        query, key = "self_attn.q_norm", "self_attn.k_norm"
    return (
        *(_module("projection", name, given) for name in QKV),
        *norms,
        Place("self_attn", (query, key, value), "attention", ("input", "self_attn.o_proj")),
        _module("projection", "self_attn.o_proj", "self_attn"),
    )


def _norm(name: str | None, given: str) -> tuple[Place, ...]:
    return () if name is None else (_module("norm", name, given),)


def places_of(family: Family) -> tuple[Place, ...]:
    """Return the places of a family's layer in the order of execution."""
    attention_adds = family.norm_after_attention or "self_attn.o_proj"
    mlp_adds = family.norm_after_mlp or "mlp.down_proj"
    middle_read_by = family.norm_before_mlp or GATE_UP[0]
    return (
        *_norm(family.norm_before_attention, HIDDEN),
        *_attention(family.norm_before_attention or HIDDEN, family.head_norms),
        *_norm(family.norm_after_attention, "self_attn.o_proj"),
        Place(MIDDLE, (HIDDEN, attention_adds), "residual", ("input", middle_read_by)),
        *_norm(family.norm_before_mlp, MIDDLE),
        *_mlp(family.norm_before_mlp or MIDDLE),
        *_norm(family.norm_after_mlp, "mlp.down_proj"),
        Place(OUT, (MIDDLE, mlp_adds), "residual", ("output", "")),
    )


def _branch_ends(family: Family) -> dict[str, str]:
    """Return which residual sum a module's output is added in."""
    attention = dict.fromkeys(("self_attn", "self_attn.o_proj", family.norm_after_attention), MIDDLE)
    mlp = dict.fromkeys(("mlp", "mlp.down_proj", family.norm_after_mlp), OUT)
    return {name: place for name, place in (attention | mlp).items() if name is not None}


@dataclass(frozen=True)
class Spot:
    """Where a graph has a place: the node and its output, of which ``columns`` are the place's (None: all).

    ``missing``: the graph does not have it; the value is that of the place before, which stands in its stead.
    """

    value: ir.Value
    node: ir.Node
    columns: slice | None = None
    missing: bool = False


class Anatomy:
    """The places of a whole graph, by layer and key.

    ``embedding`` and ``norm`` are the spots before the layers and behind them.
    """

    def __init__(self, graph: ir.Graph, config: ModelConfig, task: Task) -> None:
        self.config = config
        self.places = places_of(FAMILIES[config.family])
        self._ends = _branch_ends(FAMILIES[config.family])
        attribute = TRUNK_ATTRIBUTE.get(task)
        self.trunk = f"{attribute}." if attribute else ""
        self._groups: dict[str, list[ir.Node]] = {}
        for node in graph:
            self._groups.setdefault(module_path(node), []).append(node)
        sums = self._sums(graph)
        self.embedding = self._embedding(graph)
        self.layers: list[dict[str, Spot]] = []
        hidden = self.embedding
        for layer in range(config.num_hidden_layers):
            self.layers.append(self._layer(layer, hidden, sums))
            hidden = self.layers[-1].get(OUT)
        self.norm = self._exit(f"{self.trunk}norm")

    def path(self, layer: int, key: str = "") -> str:
        """The module path of a place, as the native definition has it."""
        path = f"{self.trunk}layers.{layer}"
        return path if key in ("", HIDDEN, MIDDLE, OUT) else f"{path}.{key}"

    def _embedding(self, graph: ir.Graph) -> Spot | None:
        """What the first layer takes, by the embedding's path or, where its nodes have lost that, by who takes it."""
        spot = self._exit(f"{self.trunk}embed_tokens")
        if spot is not None and any(
            v is not None and v.name == INPUT_IDS for node in ancestors(spot.value, set()) for v in node.inputs
        ):
            return spot
        prefix = f"{self.trunk}layers."
        for node in graph:
            if module_path(node).startswith(f"{prefix}0."):
                for value in node.inputs:
                    giver = value.producer() if value is not None else None
                    if value is not None and giver is not None and not module_path(giver).startswith(prefix):
                        return Spot(value, giver)
        return None

    def _layer(self, layer: int, hidden: Spot | None, sums: Mapping[tuple[int, str], Spot]) -> dict[str, Spot]:
        spots = {} if hidden is None else {HIDDEN: hidden}
        for place in self.places:
            if place.kind == "residual":
                spot = sums.get((layer, place.key))
            else:
                spot = self._exit(self.path(layer, place.key)) or self._packed(layer, place.key)
            if spot is None and place.takes[-1] in spots:
                before = spots[place.takes[-1]]
                spot = Spot(before.value, before.node, before.columns, missing=True)
            if spot is not None:
                spots[place.key] = spot
        return spots

    def _packed(self, layer: int, key: str) -> Spot | None:
        """One of three projections whose weights were packed into one."""
        config = self.config
        query, one = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
        columns = {
            "self_attn.q_proj": slice(0, query),
            "self_attn.k_proj": slice(query, query + one),
            "self_attn.v_proj": slice(query + one, query + 2 * one),
        }.get(key)
        spot = self._exit(self.path(layer, "self_attn.qkv_proj")) if columns else None
        return spot and Spot(spot.value, spot.node, columns)

    def _exit(self, path: str) -> Spot | None:
        """What the nodes of a path give to others: the last one's first output, if there is more than one."""
        nodes = self._groups.get(path, [])
        inside = set(nodes)
        for node in reversed(nodes):
            value = node.outputs[0]
            if value.is_graph_output() or any(user not in inside for user, _ in value.uses()):
                return Spot(value, node)
        return None

    def _sums(self, graph: ir.Graph) -> dict[tuple[int, str], Spot]:
        """The residual sums, by layer and place."""
        found: dict[tuple[int, str], Spot] = {}
        made: set[ir.Value] = set()
        prefix = f"{self.trunk}layers."
        for node in graph:
            split = (node.name or "").endswith(SUM)
            if node.op_type != "Add" and not split:
                continue
            value = node.outputs[3 if split else 0]
            places: dict[str, int] = {}
            for given in node.inputs[:2]:
                giver = given.producer() if given is not None and given not in made else None
                layer, _, key = module_path(giver).removeprefix(prefix).partition(".") if giver else ("", "", "")
                if key in self._ends and layer.isdigit() and module_path(node) != module_path(giver):
                    places[self._ends[key]] = int(layer)
            if places:
                place = OUT if OUT in places else MIDDLE
                found.setdefault((places[place], place), Spot(value, node))
                made.add(value)
        return found


def module_path(node: ir.Node | None) -> str:
    """The module path that the exporter left on a node; empty where there is none."""
    return node.metadata_props.get(MODULE_KEY, "") if node is not None else ""


def ancestors(value: ir.Value, cuts: set[ir.Value]) -> Iterator[ir.Node]:
    """The nodes that ``value`` is computed by, back to the values ``cuts``."""
    seen: set[ir.Node] = set()
    open_nodes = [value.producer()]
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        open_nodes += [given.producer() for given in node.inputs if given is not None and given not in cuts]


def weights_of(value: ir.Value, cuts: set[ir.Value], manifest: Manifest) -> tuple[str, ...]:
    """The stored tensors that ``value`` is computed from, back to the values ``cuts``."""
    given = {v.name: v for node in ancestors(value, cuts) for v in node.inputs if v is not None and v.is_initializer()}
    names = ((name or "").removesuffix(".pairs") for name in given)
    return tuple(dict.fromkeys(name for name in names if name in manifest.tensors))
