"""Where an artifact went wrong: every operator is run on what the source gives it, and compared with the source.

What an operator gets from the one before it is replaced by the source's numbers, so that an error shows where it
arises and nowhere else. Layer by layer, in the memory of a layer.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor, nn

from ..artifact import Manifest
from ..errors import ArtifactError
from ..models.layerwise import Layerwise
from ..models.rope import RotaryEmbedding
from .batches import PROMPT, Step, Trail, batches, feeds, relative_error
from .budgets import UNIT, attention, product, quantization_of, rounding
from .ends import Ends
from .hypotheses import Cause, Symptom, explain
from .places import HIDDEN, Place, Spot, weights_of
from .probe import SUM, Piece, Probe
from .probe import layer_errors as layer_errors
from .result import Finding, TensorError

FOLDING = ("awq", "smoothquant")
"""Methods that put scales into the artifact's numbers."""
FOLDED = ("input_layernorm", "self_attn.v_proj", "self_attn", "post_attention_layernorm", "mlp.up_proj", "mlp")
"""The places whose channels such a method may have scaled."""
FOLDS = 3
"""Scaled places in a row."""

Progress = Callable[[int, int], None]


@torch.inference_mode()
def locate(
    folder: Path,
    manifest: Manifest,
    stream: Layerwise,
    tokens: Tensor,
    *,
    tensors: Sequence[TensorError] = (),
    budget: float | None = None,
    threads: int | None = None,
    advance: Progress = lambda done, total: None,
) -> tuple[Finding, ...]:
    """The places whose own error exceeds what their precision allows, in the order of execution.

    The same mistake in several layers is one finding, in the first of them, that names the others.

    Args:
        tokens: int64 [1, S]; longer than the sliding window, if it is to be tried on text.
        tensors: what an audit of the weights found; their faults become findings, too.
        budget: the relative error that an operator without quantized weights may have; None for what the element type
            of the activations allows. That of quantized products follows from the manifest and from the inputs.
        threads: of one operator; None for every processor this process may use.
        advance: hears how many layers are done, and how many there are.

    Returns:
        no findings where the CPU cannot compute in the artifact's precision (bfloat16).

    Raises:
        ArtifactError: the graph cannot be read.
    """
    if manifest.model.cache_dtype == "bfloat16":
        return ()
    config = stream.config
    probe = Probe(folder, manifest, config, threads)
    base = rounding(manifest) if budget is None else budget
    rotary = RotaryEmbedding(config.rope, config.head_dim)
    trails = [
        Trail(batch, rotary, stream.embed(batch.past_ids) if batch.past else torch.empty(0), stream.embed(batch.ids))
        for batch in batches(tokens, manifest)
    ]
    ends = Ends(probe, stream, base, tensors)
    findings = ends.embedding(tokens[:, :PROMPT])
    for index in range(config.num_hidden_layers):
        layer = stream.layer(index)
        steps = [trail.step(layer, probe.anatomy.places) for trail in trails]
        findings += _Layer(probe, stream, index, layer, base, tensors).findings(steps)
        advance(index + 1, config.num_hidden_layers)
    findings += ends.behind(trails)
    return _together(findings)


class _Layer:
    """One layer of the artifact, cut at every place, beside the source's."""

    def __init__(
        self,
        probe: Probe,
        stream: Layerwise,
        index: int,
        layer: nn.Module,
        base: float,
        tensors: Sequence[TensorError],
    ) -> None:
        self.probe, self.stream, self.index, self.layer, self.base = probe, stream, index, layer, base
        self.spots = probe.anatomy.layers[index]
        self.places = [place for place in probe.anatomy.places if place.key in self.spots]
        self.names = {place.key: self._weights(place) for place in self.places}
        self.faults = {
            key: [tensor for tensor in tensors if tensor.fault is not None and tensor.name in names]
            for key, names in self.names.items()
        }
        quantized = [probe.manifest.tensors[n].quantization for names in self.names.values() for n in names]
        folded = any(q is not None and q.method in FOLDING for q in quantized)
        self.folded = FOLDED if folded else ()
        self.ratios: dict[str, Tensor] = {}

    def _weights(self, place: Place) -> tuple[str, ...]:
        """The stored tensors of a place's own operators."""
        if place.kind not in ("norm", "projection"):
            return ()
        spot = self.spots[place.key]
        cuts = {other.value for other in self.spots.values()}
        return () if spot.missing else weights_of(spot.value, cuts, self.probe.manifest)

    def findings(self, steps: Sequence[Step]) -> list[Finding]:
        path = self.probe.anatomy.path(self.index)
        present = [place for place in self.places if not self.spots[place.key].missing]
        wanted = list(dict.fromkeys(self.spots[place.key].value for place in present))
        found: dict[str, Finding] = {}
        try:
            piece = self.probe.piece(wanted, list(dict.fromkeys(spot.value for spot in self.spots.values())))
            for _ in range(FOLDS if self.folded else 0):
                self._fold(self._run(piece, present, steps[0]), steps[0])
            for number, step in enumerate(map(self._folded_past, steps)):
                results = self._run(piece, present, step)
                for place in self.places:
                    if place.key not in found:
                        finding = self._judge(place, step, results.get(place.key), first=number == 0)
                        if finding is not None:
                            found[place.key] = finding
        except ArtifactError as error:
            refused = Finding(path, None, 1.0, self.base, f"the layer by itself does not run: {error}")
            return [*found.values(), refused]
        return [found[place.key] for place in self.places if place.key in found]

    def _run(self, piece: Piece, present: Sequence[Place], step: Step) -> dict[str, Tensor]:
        """What the artifact computes at each place, [B, S, ...], from the source's numbers."""
        given: dict[ir.Value, Tensor] = {}
        parts: dict[ir.Value, list[tuple[int, Tensor]]] = {}
        for key, spot in self.spots.items():
            value = self._given(key, step)
            if spot.columns is None:
                given[spot.value] = value  # a place that stands in for the next one has the next one's numbers
            else:
                parts.setdefault(spot.value, []).append((spot.columns.start, value))
        for packed, pieces in parts.items():
            given[packed] = torch.cat([value for _, value in sorted(pieces, key=lambda part: part[0])], -1)
        wanted = list(dict.fromkeys(self.spots[place.key].value for place in present))
        inputs = feeds(step.batch, self.probe.manifest, {self.index: step.past})
        results = dict(zip(wanted, piece.run(inputs, given, wanted), strict=True))
        return {place.key: _columns(results[self.spots[place.key].value], self.spots[place.key]) for place in present}

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

    def _folded_past(self, step: Step) -> Step:
        """A layer whose values are scaled has scaled values in its cache."""
        ratio = self.ratios.get("self_attn.v_proj")
        if ratio is None or step.past is None:
            return step
        key, value = step.past
        return replace(step, past=(key, value * ratio.view(value.shape[1], 1, value.shape[3])))

    def _judge(self, place: Place, step: Step, found: Tensor | None, *, first: bool) -> Finding | None:
        module = self.layer.get_submodule(place.module)
        wanted = self._given(place.key, step)
        budget = self._budget(place, module, step, wanted)
        path = self.probe.anatomy.path(self.index, place.key)
        if found is None:
            error = relative_error(wanted, self._given(place.takes[-1], step), step.batch.new)
            words = "the residual is left out" if place.kind == "residual" else f"{_what(place)} is skipped"
            return Finding(path, None, error, budget, f"{words}: no node of the graph belongs to it")
        error = relative_error(wanted, found, step.batch.new)
        operator = (self.spots[place.key].node.name or "").removesuffix(SUM) or None
        faults = self.faults[place.key]
        if faults:
            return Finding(path, operator, error, budget, "; ".join(dict.fromkeys(_fault(t) for t in faults)))
        if error <= budget:
            return None
        cause = self._explain(place, module, step, wanted, found, error, budget)
        if cause.key is not None:
            path = self.probe.anatomy.path(self.index, cause.key)
        words = cause.words if first else f"with {step.batch.what}: {cause.words}"
        return Finding(path, operator, error, budget, words, "drifted" if cause.rounding else "broken")

    def _explain(
        self, place: Place, module: nn.Module, step: Step, wanted: Tensor, found: Tensor, error: float, budget: float
    ) -> Cause:
        rows = step.batch.new
        if wanted.shape != found.shape:
            return Cause(f"its output has shape {tuple(found.shape)}, expected {tuple(wanted.shape)}")
        if not torch.isfinite(found[rows]).all():
            largest = float(wanted[rows].abs().max())
            return Cause(f"its output has NaN or infinite values; the source's largest is {largest:.4g}")
        cause = explain(
            Symptom(
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
                lambda other: self._sibling(place, other),
            )
        )
        if cause is not None:
            return cause
        rounding = error <= 3 * budget
        what = "more than rounding makes" if rounding else "none of the usual mistakes explains it"
        return Cause(f"{_what(place)} differs by {error:.2g} of its size: {what}", rounding=rounding)

    def _sibling(self, place: Place, other: int) -> Tensor:
        name = f"{self.stream.checkpoint.trunk_prefix}layers.{other}.{place.key}.weight"
        return self.stream.checkpoint.tensor(name).float()

    def _budget(self, place: Place, module: nn.Module, step: Step, wanted: Tensor) -> float:
        rows = step.batch.new
        if place.kind == "projection":
            assert isinstance(module, nn.Linear)
            quantization = quantization_of(self.names[place.key], self.probe.manifest)
            source = step.hidden if place.takes[0] == HIDDEN else step.values[place.takes[0]]
            unscaled = step.values[place.key]
            return product(self.base, module.weight, source[rows], unscaled[rows], quantization)
        if place.kind == "attention":
            query, key = (self._given(taken, step)[rows] for taken in place.takes[:2])
            unit = UNIT[self.probe.manifest.model.cache_dtype]
            return attention(self.base, unit, query, key, self.stream.config.head_dim)
        return self.base


def _columns(value: Tensor, spot: Spot) -> Tensor:
    return value if spot.columns is None else value[..., spot.columns]


def _what(place: Place) -> str:
    return {"norm": "the norm", "attention": "the attention operator", "residual": "the residual sum"}.get(
        place.kind, "the activation" if place.kind == "activation" else "the product"
    )


def _fault(tensor: TensorError) -> str:
    return f"{tensor.name}: {tensor.fault}"


def _together(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """One finding for the same cause at the same place of several layers."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        alike = re.sub(r"layers?[. ]\d+", "layers", finding.module), re.sub(r"layers?[. ]\d+", "layers", finding.cause)
        groups.setdefault(alike, []).append(finding)
    together = []
    for members in groups.values():
        first, *others = dict.fromkeys(member.module for member in members)
        worst = max(members, key=lambda member: member.error)
        layers = [found[1] for other in others if (found := re.search(r"layers\.(\d+)", other))]
        more = f"; so in layer{'s' * (len(layers) > 1)} {_ranges(layers)}" if layers else ""
        del first, worst
        together.append(replace(members[0], cause=members[0].cause + more))
    return tuple(together)


def _ranges(layers: Sequence[str]) -> str:
    """1, 2, 3, 5 as "1 to 3, 5"."""
    numbers = [int(layer) for layer in layers]
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
