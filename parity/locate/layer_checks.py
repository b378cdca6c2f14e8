"""One layer of an artifact, cut at every place, beside the source's."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import onnx_ir as ir
import torch
from torch import Tensor, nn

from ...contract import CACHE_PARTS, PRESENT
from ...errors import ArtifactError
from ...models import ops
from ...models.family import FAMILIES
from ...models.layerwise import Layerwise
from ...models.ops import Heads
from ...models.rope import RotaryEmbedding
from .batches import Batch, Step, feeds, relative_error
from .budgets import UNIT, attention, energies, product, quantization_of
from .hypotheses import explain
from .judgement import Judgement
from .places import HIDDEN, SUM, Place, Spot, weights_of
from .probe import Piece, Probe
from .symptoms import WHAT, Cause, Symptom

FOLDING = ("awq", "smoothquant")
"""Methods that put scales into the artifact's numbers."""
FOLDED = ("self_attn.v_proj", "self_attn", "mlp.up_proj", "mlp")
"""The places whose channels such a method may have scaled, beside the norms that only projections read."""
FOLDS = 3
"""Scaled places in a row."""
FAR = 8192
"""How long a cache attention is tried behind, where the model and its window are as long."""
NEW = 4
"""New tokens behind it."""


class LayerProbe:
    """Judges the places of a layer."""

    def __init__(self, probe: Probe, stream: Layerwise, index: int, layer: nn.Module, base: float) -> None:
        self.probe, self.stream, self.index, self.layer, self.base = probe, stream, index, layer, base
        self.spots = probe.anatomy.layers[index]
        self.places = [place for place in probe.anatomy.places if place.key in self.spots]
        self.present = [place for place in self.places if not self.spots[place.key].missing]
        self.weights = {place.key: self._weights(place) for place in self.places}
        self.cache = self._cache()
        manifest = probe.manifest
        quantized = [manifest.tensors[name].quantization for names in self.weights.values() for name in names]
        folds = any(q is not None and q.method in FOLDING for q in quantized)
        self.folded = (*FAMILIES[stream.config.family].feeding_norms, *FOLDED) if folds else ()
        self.ratios: dict[str, Tensor] = {}
        self.energies: dict[str, Tensor] = {}

    def judgements(self, steps: Sequence[Step], rotary: RotaryEmbedding) -> list[Judgement]:
        """Of each place, in the order of execution: how it does in the first way of running in which it exceeds its
        budget, or in that where it does worst."""
        found: dict[str, Judgement] = {}
        try:
            piece = self._piece([*(self.spots[place.key] for place in self.present), *self.cache.values()])
            for _ in range(FOLDS if self.folded else 0):
                self._fold(self._run(piece, steps[0]), steps[0])
            for number, step in enumerate(map(self._scaled, steps)):
                results = self._run(piece, step)
                for place in self.places:
                    self._keep(found, place.key, self._judge(place, step, results.get(place.key), first=number == 0))
                for part in self.cache if not step.batch.padded else ():
                    self._keep(found, part, self._judge_cache(part, step, results[part], first=number == 0))
            far = self._far(self._scaled(steps[0]), rotary)
            if far is not None:
                place = next(place for place in self.present if place.kind == "attention")
                result = self._run(self._piece([self.spots[place.key]]), far, [place.key])[place.key]
                self._keep(found, place.key, self._judge(place, far, result, first=False))
        except ArtifactError as error:
            words = f"the layer by itself does not run: {error}"
            path = self.probe.anatomy.path(self.index)
            return [*found.values(), Judgement(path, None, 1.0, self.base, lambda: Cause(words))]
        if any(key in found and found[key].exceeds for key in ("self_attn", "self_attn.k_proj", "self_attn.v_proj")):
            for part in self.cache:
                found.pop(part, None)
        return list(found.values())

    @staticmethod
    def _keep(found: dict[str, Judgement], key: str, new: Judgement) -> None:
        old = found.get(key)
        if old is None or (not old.exceeds and new.error / new.budget > old.error / old.budget):
            found[key] = new

    def _weights(self, place: Place) -> tuple[str, ...]:
        """The stored tensors of a place's own operators."""
        if place.kind not in ("norm", "projection") or self.spots[place.key].missing:
            return ()
        cuts = {other.value for other in self.spots.values()}
        return weights_of(self.spots[place.key].value, cuts, self.probe.manifest)

    def _cache(self) -> dict[str, Spot]:
        names = {f"{PRESENT}{self.index}.{part}": part for part in CACHE_PARTS}
        values = [value for value in self.probe.graph.outputs if value.name in names]
        return {names[v.name or ""]: Spot(v, node) for v in values if (node := v.producer()) is not None}

    def _piece(self, spots: Sequence[Spot]) -> Piece:
        return self.probe.piece(_values(spots), _values(self.spots.values()))

    def _run(self, piece: Piece, step: Step, keys: Sequence[str] | None = None) -> dict[str, Tensor]:
        """What the artifact computes at each place, [B, S, ...], from the source's numbers."""
        given: dict[ir.Value, Tensor] = {}
        parts: dict[ir.Value, list[tuple[int, Tensor]]] = {}
        for key, spot in self.spots.items():
            if key != HIDDEN and key not in step.values:
                continue
            if spot.columns is None:
                given[spot.value] = self._given(key, step)  # what stands in for the next place has its numbers
            else:
                parts.setdefault(spot.value, []).append((spot.columns.start, self._given(key, step)))
        for packed, pieces in parts.items():
            given[packed] = torch.cat([value for _, value in sorted(pieces, key=lambda part: part[0])], -1)
        spots = self.cache | {place.key: self.spots[place.key] for place in self.present}
        spots = spots if keys is None else {key: spots[key] for key in keys}
        wanted = _values(spots.values())
        inputs = feeds(step.batch, self.probe.manifest, {self.index: step.past})
        results = dict(zip(wanted, piece.run(inputs, given, wanted), strict=True))
        return {key: _columns(results[spot.value], spot) for key, spot in spots.items()}

    def _given(self, key: str, step: Step) -> Tensor:
        value = step.hidden if key == HIDDEN else step.values[key]
        return value * self.ratios[key] if key in self.ratios else value

    def _fold(self, results: Mapping[str, Tensor], step: Step) -> None:
        """The scale of each channel that a quantization has folded in, by least squares."""
        rows = step.batch.new
        for key in self.folded:
            if key in results and results[key].shape == step.values[key].shape:
                source, ours = step.values[key][rows].double(), results[key][rows].double()
                energy = source.square().sum(0)
                ratio = (source * ours).sum(0) / energy.clamp(min=1e-30)
                self.ratios[key] = torch.where((energy > 0) & ratio.isfinite(), ratio, 1.0).float()

    def _scaled(self, step: Step) -> Step:
        """A layer whose values are scaled has scaled values in its cache."""
        ratio = self.ratios.get("self_attn.v_proj")
        if ratio is None:
            return step
        heads = ratio.view(-1, 1, self.stream.config.head_dim)
        past, present = ((pair[0], pair[1] * heads) if pair is not None else None for pair in (step.past, step.present))
        return replace(step, past=past, present=present)

    def _far(self, step: Step, rotary: RotaryEmbedding) -> Step | None:
        """Attention alone behind a cache longer than the text, of what the cache has at hand; None where there is no
        cache, or no attention, or nothing longer."""
        config, attends = self.stream.config, self.spots.get("self_attn")
        total = min(config.context_length, FAR)
        if (
            not self.cache
            or step.present is None
            or attends is None
            or attends.missing
            or total <= step.batch.mask.shape[1]
        ):
            return None
        place = next(place for place in self.places if place.kind == "attention")
        if any(key not in self.spots or step.values[key].shape[1] < NEW for key in place.takes):
            return None
        ids = torch.zeros(1, total, dtype=torch.int64)
        batch = Batch("far", f"{total:,} tokens", ids[:, NEW:], ids[:, :NEW], torch.ones_like(ids))
        plan = ops.plan(batch.ids, batch.mask, batch.past, rotary)
        copies = -(-batch.past // step.present[0].shape[2])
        past = tuple(x[:1].repeat(1, 1, copies, 1)[:, :, : batch.past] for x in step.present)
        values = {key: value[:1, -NEW:] for key, value in step.values.items()}
        heads = Heads(config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        query, key, value = (self._given(key, replace(step, values=values)) for key in place.takes)
        window, rotates = config.layer_windows[self.index], config.layer_rotary[self.index]
        output, _ = ops.attention(query, key, value, (past[0], past[1]), plan, heads, window=window, rotate=rotates)
        if place.key in self.ratios:
            output = output / self.ratios[place.key]
        return Step(batch, plan, step.hidden, values | {place.key: output}, (past[0], past[1]))

    def _judge(self, place: Place, step: Step, found: Tensor | None, *, first: bool) -> Judgement:
        module = self.layer.get_submodule(place.module)
        wanted = self._given(place.key, step)
        budget = self._budget(place, module, step)
        path = self.probe.anatomy.path(self.index, place.key)
        if found is None:
            error = relative_error(wanted, self._given(place.takes[-1], step), step.batch.new)
            words = "the residual is left out" if place.kind == "residual" else f"{WHAT[place.kind]} is skipped"
            return Judgement(path, None, error, budget, lambda: Cause(f"{words}: no node of the graph belongs to it"))
        error = relative_error(wanted, found, step.batch.new)
        symptom = Symptom(
            self.stream.config,
            self.index,
            place,
            module,
            step,
            wanted,
            found,
            error,
            budget,
            self.ratios,
            partial(self._sibling, place),
            lambda other: self.probe.anatomy.path(other, place.key),
        )
        operator = (self.spots[place.key].node.name or "").removesuffix(SUM) or None
        when = "" if first else step.batch.what
        return Judgement(path, operator, error, budget, partial(explain, symptom), self.weights[place.key], when)

    def _judge_cache(self, part: str, step: Step, found: Tensor, *, first: bool) -> Judgement:
        """The keys or values that the layer hands out."""
        assert step.present is not None
        pair = dict(zip(CACHE_PARTS, step.present, strict=True))
        other = next(pair[name] for name in CACHE_PARTS if name != part)
        error = relative_error(pair[part], found)

        def why() -> Cause:
            if relative_error(other, found) < error / 5:
                return Cause("the cache has keys and values exchanged")
            if found.shape != pair[part].shape:
                shapes = f"{tuple(found.shape)}, expected {tuple(pair[part].shape)}"
                return Cause(f"the {part}s that it puts into the cache have shape {shapes}")
            return Cause(f"the {part}s that it puts into the cache differ by {error:.2g} of their size")

        place = next(place for place in self.places if place.kind == "attention")
        path = self.probe.anatomy.path(self.index, place.key)
        budget = self._budget(place, self.layer, step)
        return Judgement(path, self.cache[part].node.name, error, budget, why, (), "" if first else step.batch.what)

    def _sibling(self, place: Place, other: int) -> Tensor:
        name = f"{self.stream.checkpoint.trunk_prefix}layers.{other}.{place.key}.weight"
        return self.stream.checkpoint.tensor(name).float()

    def _budget(self, place: Place, module: nn.Module, step: Step) -> float:
        rows = step.batch.new
        if place.kind == "projection":
            assert isinstance(module, nn.Linear)
            quantization = quantization_of(self.weights[place.key], self.probe.manifest)
            source = step.hidden if place.takes[0] == HIDDEN else step.values[place.takes[0]]
            if place.key not in self.energies:
                self.energies[place.key] = energies(module.weight)
            columns, wanted = self.energies[place.key], step.values[place.key][rows]
            return product(self.base, columns, source[rows], wanted, quantization)
        if place.kind == "attention":
            query, key = (self._given(taken, step)[rows] for taken in place.takes[:2])
            unit = UNIT[self.probe.manifest.model.cache_dtype]
            return attention(self.base, unit, query, key, self.stream.config.head_dim)
        return self.base


def _values(spots: Iterable[Spot]) -> list[ir.Value]:
    return list(dict.fromkeys(spot.value for spot in spots))


def _columns(value: Tensor, spot: Spot) -> Tensor:
    return value if spot.columns is None else value[..., spot.columns]
