"""Checks of one layer: the artifact's layer, cut at every tap, beside the source's."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import onnx_ir as ir
import torch
from torch import Tensor, nn

from ...contract import CACHE_PARTS, PRESENT
from ...errors import ArtifactError
from ...models import ops
from ...models.checkpoint import Checkpoint
from ...models.family import FAMILIES
from ...models.loading.layerwise import Layerwise
from ...models.ops import Heads
from ...models.quantized.weights import BlockGrid
from ...models.rope import RotaryEmbedding
from .artifact_graph import ArtifactGraph, Subgraph
from .budgets import (
    UNIT,
    attention_budget,
    matmul_budget,
    mixture_budget,
    quantization_of,
    relative_error,
    squared_column_norms,
)
from .findings import Check
from .folded_scales import FoldedScales, may_be_folded
from .graph_inputs import graph_inputs
from .hypotheses.mismatch import OPERATORS, Cause, Mismatch
from .hypotheses.operators import diagnose
from .scenarios import Scenario
from .source_run import LayerRun
from .tap_map import SUM, GraphTap, tensors_of
from .taps import HIDDEN, Tap

FOLD_PASSES = 3
"""Passes that fit the scales; each uses the scales that the pass before it has fitted to a tap's inputs."""
LONG_CACHE = 8192
"""Length of the cache that attention is also checked with, where the context is as long."""
LONG_NEW = 4
"""New tokens after that cache."""


class LayerChecks:
    """The checks of one layer of an artifact."""

    def __init__(self, artifact: ArtifactGraph, source: Layerwise, index: int, layer: nn.Module, base: float) -> None:
        """
        Args:
            layer: the source's layer.
            base: the budget of an operator without quantized weights.
        """
        self.artifact, self.source, self.index, self.layer, self.base = artifact, source, index, layer, base
        self.graph_taps = artifact.tap_map.layers[index]
        self.taps = [tap for tap in artifact.tap_map.taps(index) if tap.key in self.graph_taps]
        self.present = [tap for tap in self.taps if not self.graph_taps[tap.key].missing]
        self.weights = {tap.key: self._weights_of(tap) for tap in self.taps}
        self.cache = self._cache_outputs()
        self.folded = FoldedScales(FAMILIES[source.config.family])
        self._squared_norms: dict[str, Tensor] = {}

    def run(self, layer_runs: Sequence[LayerRun], rotary: RotaryEmbedding) -> list[Check]:
        """Return the check of each tap, in the order of execution.

        A tap has the check of the first scenario in which it exceeds its budget, or else of the one with the largest
        error relative to its budget.
        """
        checks: dict[str, Check] = {}
        try:
            subgraph = self._subgraph([*(self.graph_taps[tap.key] for tap in self.present), *self.cache.values()])
            names = (name for names in self.weights.values() for name in names)
            for _ in range(FOLD_PASSES if may_be_folded(names, self.artifact.manifest) else 0):
                self.folded.fit(self._outputs(subgraph, layer_runs[0]), layer_runs[0])
            head_dim = self.source.config.head_dim
            layer_runs = [self.folded.apply_to_cache(layer_run, head_dim) for layer_run in layer_runs]
            for number, layer_run in enumerate(layer_runs):
                outputs = self._outputs(subgraph, layer_run)
                for tap in self.taps:
                    check = self._check(tap, layer_run, outputs.get(tap.key), first=number == 0)
                    _keep_worse(checks, tap.key, check)
                for name in self.cache if not layer_run.scenario.has_padding else ():
                    _keep_worse(checks, name, self._check_cache(name, layer_run, outputs[name], first=number == 0))
            long = self._long_cache_run(layer_runs[0], rotary)
            if long is not None:
                tap = self._attention_tap
                actual = self._outputs(self._subgraph([self.graph_taps[tap.key]]), long, [tap.key])[tap.key]
                _keep_worse(checks, tap.key, self._check(tap, long, actual, first=False))
        except ArtifactError as error:
            path = self.artifact.tap_map.path(self.index)
            return [*checks.values(), Check.failed(path, self.base, f"the layer does not run on its own: {error}")]
        # A wrong cache follows from these, and says nothing more.
        before_cache = ("self_attn", "self_attn.k_proj", "self_attn.v_proj")
        if any(key in checks and checks[key].fails for key in before_cache):
            for name in self.cache:
                checks.pop(name, None)
        return list(checks.values())

    @property
    def _attention_tap(self) -> Tap:
        return next(tap for tap in self.taps if tap.kind == "attention")

    def _weights_of(self, tap: Tap) -> tuple[str, ...]:
        """Return the stored tensors of a tap's own operators."""
        if tap.kind not in ("norm", "projection", "mixture") or self.graph_taps[tap.key].missing:
            return ()
        cuts = {other.value for other in self.graph_taps.values()}
        return tensors_of(self.graph_taps[tap.key].value, cuts, self.artifact.manifest)

    def _cache_outputs(self) -> dict[str, GraphTap]:
        outputs = {value.name: value for value in self.artifact.graph.outputs}
        values = [(name, outputs.get(f"{PRESENT}{self.index}.{name}")) for name in CACHE_PARTS]
        return {
            name: GraphTap(value, node)
            for name, value in values
            if value is not None and (node := value.producer()) is not None
        }

    def _subgraph(self, graph_taps: Sequence[GraphTap]) -> Subgraph:
        return self.artifact.subgraph(_values(graph_taps), _values(self.graph_taps.values()))

    def _outputs(self, subgraph: Subgraph, layer_run: LayerRun, keys: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return what the artifact computes at each tap, [B, S, ...], from the source's activations."""
        given: dict[ir.Value, Tensor] = {}
        packed: dict[ir.Value, list[tuple[int, Tensor]]] = {}
        for key, graph_tap in self.graph_taps.items():
            if key != HIDDEN and key not in layer_run.activations:
                continue
            if graph_tap.columns is None:
                # A missing tap has the value of the one before it, and gives it its own activation.
                given[graph_tap.value] = self.folded.activation(key, layer_run)
            else:
                columns = graph_tap.columns.start, self.folded.activation(key, layer_run)
                packed.setdefault(graph_tap.value, []).append(columns)
        for value, parts in packed.items():
            given[value] = torch.cat([part for _, part in sorted(parts, key=lambda part: part[0])], -1)
        known: dict[str, GraphTap] = dict(self.cache.items())
        known |= {tap.key: self.graph_taps[tap.key] for tap in self.present}
        wanted = known if keys is None else {key: known[key] for key in keys}
        values = _values(wanted.values())
        inputs = graph_inputs(layer_run.scenario, self.artifact.manifest, {self.index: layer_run.past})
        results = dict(zip(values, subgraph.run(inputs, given, values), strict=True))
        return {key: _columns(results[graph_tap.value], graph_tap) for key, graph_tap in wanted.items()}

    def _long_cache_run(self, layer_run: LayerRun, rotary: RotaryEmbedding) -> LayerRun | None:
        """Return a run of attention alone with a cache longer than the text, filled with copies of the text's cache.

        None where the layer has no cache or no attention, or where the context is no longer than the text.
        """
        config, attention = self.source.config, self.graph_taps.get("self_attn")
        total = min(config.context_length, LONG_CACHE)
        present = layer_run.present
        if not self.cache or present is None or attention is None or attention.missing:
            return None
        tap = self._attention_tap
        if total <= layer_run.scenario.mask.shape[1]:
            return None
        if any(key not in self.graph_taps or layer_run.activations[key].shape[1] < LONG_NEW for key in tap.inputs):
            return None
        ids = torch.zeros(1, total, dtype=torch.int64)
        scenario = Scenario("long", f"{total:,} tokens", ids[:, LONG_NEW:], ids[:, :LONG_NEW], torch.ones_like(ids))
        plan = ops.plan(scenario.ids, scenario.mask, scenario.past_length, rotary)
        copies = -(-scenario.past_length // present[0].shape[2])
        past_key, past_value = (x[:1].repeat(1, 1, copies, 1)[:, :, : scenario.past_length] for x in present)
        activations = {key: value[:1, -LONG_NEW:] for key, value in layer_run.activations.items()}
        heads = Heads(config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        new_run = replace(layer_run, activations=activations)
        query, key, value = (self.folded.activation(key, new_run) for key in tap.inputs)
        window, rotates = config.layer_windows[self.index], config.layer_rotary[self.index]
        past = past_key, past_value
        output, _ = ops.attention(query, key, value, past, plan, heads, window=window, rotate=rotates)
        output = output / self.folded.of(tap.key)
        return LayerRun(scenario, plan, layer_run.hidden, activations | {tap.key: output}, past)

    def _check(self, tap: Tap, layer_run: LayerRun, actual: Tensor | None, *, first: bool) -> Check:
        module = self.layer.get_submodule(tap.module)
        expected, mask = self.folded.activation(tap.key, layer_run), layer_run.scenario.unpadded
        budget = self._budget(tap, module, layer_run)
        tap_map = self.artifact.tap_map
        path = tap_map.path(self.index, tap.key)
        if actual is None:
            error = relative_error(expected, self.folded.activation(tap.inputs[-1], layer_run), mask)
            text = "the residual is left out" if tap.kind == "residual" else f"{OPERATORS[tap.kind]} is skipped"
            return Check(path, None, error, budget, lambda: Cause(f"{text}: the graph has no node for it"))
        mismatch = Mismatch(
            self.source.config,
            self.index,
            tap,
            module,
            layer_run,
            expected,
            actual,
            relative_error(expected, actual, mask),
            budget,
            self.folded,
            partial(self._weight_of_layer, tap),
            lambda layer: tap_map.path(layer, tap.key),
            self._grid(tap),
        )
        operator = (self.graph_taps[tap.key].node.name or "").removesuffix(SUM) or None
        scenario = "" if first else layer_run.scenario.description
        weights = self.weights[tap.key]
        return Check(path, operator, mismatch.error, budget, partial(diagnose, mismatch), weights, scenario)

    def _check_cache(self, name: str, layer_run: LayerRun, actual: Tensor, *, first: bool) -> Check:
        """Return the check of the keys or values that the layer writes to the cache."""
        assert layer_run.present is not None
        pair: dict[str, Tensor] = dict(zip(CACHE_PARTS, layer_run.present, strict=True))
        expected, other = pair[name], pair["value" if name == "key" else "key"]
        error = relative_error(expected, actual)

        def diagnose_cache() -> Cause:
            if relative_error(other, actual) < error / 5:
                return Cause("keys and values are swapped in the cache")
            if actual.shape != expected.shape:
                shapes = f"{tuple(actual.shape)}, expected {tuple(expected.shape)}"
                return Cause(f"the {name}s written to the cache have shape {shapes}")
            return Cause(f"the {name}s written to the cache have a relative error of {error:.2g}")

        tap = self._attention_tap
        path = self.artifact.tap_map.path(self.index, tap.key)
        budget = self._budget(tap, self.layer, layer_run)
        scenario = "" if first else layer_run.scenario.description
        return Check(path, self.cache[name].node.name, error, budget, diagnose_cache, (), scenario)

    def _weight_of_layer(self, tap: Tap, layer: int) -> Tensor:
        name = f"{self.source.checkpoint.trunk_prefix}layers.{layer}.{tap.key}.weight"
        return self.source.checkpoint.tensor(name).float()

    def _grid(self, tap: Tap) -> BlockGrid | None:
        """Return the codes that the checkpoint stores for the weight of a projection."""
        checkpoint = self.source.checkpoint
        if tap.kind != "projection" or not isinstance(checkpoint, Checkpoint):
            return None
        weight = checkpoint.quantized.get(f"{checkpoint.trunk_prefix}layers.{self.index}.{tap.key}.weight")
        return None if weight is None else weight.grid

    def _budget(self, tap: Tap, module: nn.Module, layer_run: LayerRun) -> float:
        mask = layer_run.scenario.unpadded
        if tap.kind == "projection":
            assert isinstance(module, nn.Linear)
            quantization = quantization_of(self.weights[tap.key], self.artifact.manifest)
            inputs = layer_run.hidden if tap.inputs[0] == HIDDEN else layer_run.activations[tap.inputs[0]]
            if tap.key not in self._squared_norms:
                self._squared_norms[tap.key] = squared_column_norms(module.weight)
            columns, expected = self._squared_norms[tap.key], layer_run.activations[tap.key][mask]
            return matmul_budget(self.base, columns, inputs[mask], expected, quantization)
        if tap.kind == "mixture":
            return mixture_budget(self.base, quantization_of(self.weights[tap.key], self.artifact.manifest))
        if tap.kind == "attention":
            query, key = (self.folded.activation(key, layer_run)[mask] for key in tap.inputs[:2])
            unit = UNIT[self.artifact.manifest.model.cache_dtype]
            return attention_budget(self.base, unit, query, key, self.source.config.head_dim)
        return self.base


def _keep_worse(checks: dict[str, Check], key: str, new: Check) -> None:
    """Keep the first check that fails, or else the one with the largest error relative to its budget."""
    old = checks.get(key)
    if old is None or (not old.fails and new.error / new.budget > old.error / old.budget):
        checks[key] = new


def _values(graph_taps: Iterable[GraphTap]) -> list[ir.Value]:
    return list(dict.fromkeys(graph_tap.value for graph_tap in graph_taps))


def _columns(value: Tensor, graph_tap: GraphTap) -> Tensor:
    return value if graph_tap.columns is None else value[..., graph_tap.columns]
