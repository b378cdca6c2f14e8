"""Every stored weight against the tensors of the checkpoint that it was made from.

Weights pass by in pieces: what is in memory does not grow with the model. Float weights must be the source's numbers
rounded to their type. Quantized ones err, by as much as the manifest recorded; their bytes are decoded here without the
exporter's code, so that a layout which the exporter has wrong does not pass.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import torch

from ...artifact import GRAPH, Manifest, TensorEntry
from ...contract import MODULE_KEY
from ...errors import ArtifactError
from ...models.checkpoint import Checkpoint
from ...models.heads import build
from ...models.parameters import stored_name
from ..report.result import TensorError
from .comparison import Comparison, compare
from .diagnosis import Suspect, explain
from .embeddings import Unreadable
from .expected import Expected, expected_of
from .fold_scales import factors
from .folds import COARSE, METHODS, Factors, Holder
from .layouts import Weight, weights_of
from .rotary import computed
from .stored import FloatWeight

ROUNDING_METHODS = ("rtn", "awq")
"""Of the manifest: every code is the nearest on its block's grid."""

RECORDED = 1e-5
"""How far an error may be from the one in the manifest, relatively: both are sums of the same numbers."""

UNLIKE = 0.9
"""The relative error from which a weight is not the source's, whatever the manifest says of it; of zeros it is 1."""

SHIFTED = 0.5
"""The share of blocks that are off the same way from which that is no chance."""


def audit(
    folder: Path,
    manifest: Manifest,
    checkpoint: Checkpoint,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[TensorError, ...]:
    """Compare all weights, in the manifest's order; those that the checkpoint has and the artifact lacks come last.

    Args:
        advance: hears (weights compared, weights in all).

    Raises:
        ArtifactError: the graph or its data cannot be read as the manifest says, or the checkpoint is of another model.
    """
    path = Path(folder) / GRAPH
    try:
        model = ir.load(path)
    except Exception as error:  # onnx_ir and protobuf raise all sorts
        raise ArtifactError(f"{path} cannot be read ({error}); export the model again") from None
    return _Audit(Path(folder), manifest, checkpoint, model).run(advance)


class _Audit:
    def __init__(self, folder: Path, manifest: Manifest, checkpoint: Checkpoint, model: ir.Model) -> None:
        self.folder = folder
        self.manifest = manifest
        self.checkpoint = checkpoint
        self.model = model
        self.values: Mapping[str, ir.Value] = model.graph.initializers
        self.holders: dict[str, list[Holder]] = {}
        self.faults: dict[str, str] = {}
        for name, entry in manifest.tensors.items():
            if entry.sources:
                self._collect(name, entry)
        self.through = self._through()
        first = {source: holders[0] for holders in self.holders.values() for source in holders[0].entry.sources}
        self.factors: Factors = factors(checkpoint, first, self.through)

    def run(self, advance: Callable[[int, int], None]) -> tuple[TensorError, ...]:
        entries = self.manifest.tensors
        total = sum(torch.Size(entry.shape).numel() for entry in entries.values() if entry.sources)
        found, done = [], 0
        for name, entry in entries.items():
            if entry.sources:
                found.append(self._weight(name, entry))
                done += found[-1].elements
                advance(done, total)
        found += computed(self.folder, self.manifest, self.checkpoint.config, self.model)
        return (*found, *self._missing())

    def _collect(self, name: str, entry: TensorEntry) -> None:
        """How the graph reads a weight, in each of the ways in which it does."""
        same = [v for v in self.values.values() if v.name == name or self._same_bytes(v, name)]
        if name not in self.values:
            raise ArtifactError(f"{self.folder / GRAPH} has no initializer {name}; export the model again")
        found: dict[Weight, ir.Node] = {}
        for value in same:
            try:
                for node, weight in weights_of(value, self.folder):
                    found.setdefault(weight, node)
                    self._check_place(name, entry, node)
            except Unreadable as problem:
                self.faults.setdefault(name, f"the graph cannot be followed here: {problem}")
        if not found:
            self.faults.setdefault(name, "no operator computes with it")
        wanted = expected_of(self.checkpoint, entry.sources, name)
        for weight in found:
            if weight.shape != wanted.shape:
                self.faults.setdefault(
                    name, f"the graph reads it as {weight.shape}, and the checkpoint has {wanted.shape}"
                )
            else:
                self.holders.setdefault(name, []).append(Holder(name, entry, weight))

    def _same_bytes(self, value: ir.Value, name: str) -> bool:
        """Whether it is another initializer over the bytes of ``name``, and has no entry of its own."""
        if value.name in self.manifest.tensors or name not in self.values:
            return False
        ours, other = self.values[name].const_value, value.const_value
        if not isinstance(ours, ir.ExternalTensor) or not isinstance(other, ir.ExternalTensor):
            return False
        return (ours.location, ours.offset) == (other.location, other.offset)

    def _check_place(self, name: str, entry: TensorEntry, node: ir.Node) -> None:
        """Nodes carry their module's path, and weights their own: they must agree."""
        path, own = node.metadata_props.get(MODULE_KEY, ""), module_of(name)
        tied = self.checkpoint.config.tie_word_embeddings and own.endswith("embed_tokens")
        if path in ("", own) or (tied and path == "lm_head"):
            return
        self.faults[name] = f"it is the weight of {own}, and {path} computes with it"

    def _through(self) -> torch.dtype | None:
        """The type that all numbers were rounded to on the way, if any: an unquantized artifact can be quantized.

        Vectors without scales folded in tell: those outside the layers, and in them all where nothing is folded.
        """
        quantized = [entry.quantization for entry in self.manifest.tensors.values() if entry.quantization]
        folding = any(quantization.method in METHODS for quantization in quantized)
        vectors = [
            holders[0]
            for holders in self.holders.values()
            if isinstance(holders[0].weight, FloatWeight)
            and holders[0].weight.shape[0] == 1
            and not (folding and ".layers." in f".{holders[0].name}")
        ]
        for through in (None, torch.float16, torch.bfloat16):
            wanted = [replace(expected_of(self.checkpoint, h.entry.sources, h.name), through=through) for h in vectors]
            if all(compare(h.weight, w).same for h, w in zip(vectors, wanted, strict=True)):
                return through
        return None

    def _weight(self, name: str, entry: TensorEntry) -> TensorError:
        wanted = self.factors.apply(replace(expected_of(self.checkpoint, entry.sources, name), through=self.through))
        fault = self.faults.get(name)
        wrong = [self.factors.wrong[source] for source in entry.sources if source in self.factors.wrong]
        quantization = entry.quantization
        strict = quantization is not None and quantization.method in ROUNDING_METHODS and wanted.noise < COARSE
        first: Comparison | None = None
        for holder in self.holders.get(name, ()):
            found = compare(holder.weight, wanted, strict=strict)
            suspicion = self._suspicion(entry, holder.weight, wanted, found)
            if wrong and found.stored.any() and not found.not_finite.count:
                fault = fault or wrong[0]
            elif suspicion is not None and fault is None:
                suspect = Suspect(name, entry, holder.weight, wanted, found, suspicion)
                fault = explain(suspect, self.checkpoint)
            first = first or found
        blocks = first if first is not None and quantization is not None else None
        return TensorError(
            name=name,
            module=module_of(name),
            precision=entry.precision,
            bits=quantization.bits if quantization else None,
            block_size=quantization.block_size if quantization else None,
            method=quantization.method if quantization else None,
            elements=torch.Size(wanted.shape).numel(),
            error=first.relative_error if first is not None else 1.0,
            recorded=quantization.error if quantization else None,
            damage=quantization.damage if quantization else None,
            worst_block=blocks.worst if blocks else None,
            worst_row=blocks.worst_row if blocks else None,
            fault=fault,
        )

    def _suspicion(self, entry: TensorEntry, weight: Weight, wanted: Expected, found: Comparison) -> str | None:
        """What cannot be, in a weight made from the source as the manifest says; None where all can."""
        if found.not_finite.count:
            return "it holds NaN or infinite values"
        error, recorded = found.relative_error, entry.quantization
        if recorded is None or weight.block_size is None:
            if wanted.scaled and not wanted.vector:
                limit = 4 * max(wanted.noise, 2.0**-23)
                return None if error <= limit else f"its relative error is {error:.3g}"
            if found.same or (wanted.scaled and wanted.vector and not self._wrong(wanted)):
                return None
            return f"{found.different.count:,} of its numbers are not the source's, a relative error of {error:.3g}"
        said = min(recorded.block_size, wanted.shape[1])  # a longer block is the whole row
        if (weight.bits, min(weight.block_size, wanted.shape[1])) != (recorded.bits, said):
            return (
                f"the graph reads it in blocks of {weight.block_size} with {weight.bits} bits, and the manifest says "
                f"{recorded.block_size} with {recorded.bits}"
            )
        allowed = RECORDED * recorded.error + 1e-7
        if wanted.noise:
            allowed += 2 * wanted.noise**2 / max(recorded.error, wanted.noise) + 2 * wanted.noise * 2.0**-11
            allowed += recorded.error * (2e-3 + 2 / min(wanted.shape)) if wanted.noise > 2.0**-20 else 0.0
        if abs(error - recorded.error) > allowed:
            return f"its relative error is {error:.4g}, and the manifest recorded {recorded.error:.4g}"
        if error > UNLIKE:
            return f"its relative error is {error:.3g}"
        if found.opposite.count:
            return f"{found.opposite.count:,} of its {found.blocks:,} blocks point the other way"
        if found.unrounded.count:
            return f"{found.unrounded.count:,} of its codes are not those nearest to the source's numbers"
        if max(found.above.count, found.below.count) > SHIFTED * found.blocks:
            return "most of its blocks are off by more than half a step, all the same way"
        return None

    def _wrong(self, wanted: Expected) -> bool:
        return any(name in self.factors.wrong for name in wanted.sources)

    def _missing(self) -> list[TensorError]:
        """Tensors that the model has and no initializer was made from."""
        config, task = self.checkpoint.config, self.manifest.task
        with torch.device("meta"):
            state = build(config, task).state_dict()
        held = {source for entry in self.manifest.tensors.values() for source in entry.sources}
        found = []
        for name, parameter in state.items():
            tied = config.tie_word_embeddings and name == "lm_head.weight"
            if (stored := stored_name(self.checkpoint, name, task)) not in held and not tied:
                own = module_of(name)
                fault = f"{_lack(name)}: no initializer of the graph was made from {stored}"
                found.append(
                    TensorError(name, own, "none", None, None, None, parameter.numel(), error=1.0, fault=fault)
                )
        return found


def _lack(name: str) -> str:
    """What is missing with a tensor."""
    if name.endswith(".bias"):
        return "the bias is missing"
    if name.endswith("norm.weight"):
        return "the norm's weight is missing: the norm is skipped, or does without it"
    if name == "lm_head.weight":
        return "the head has no weight of its own, as if it were the embedding (config.json has no tied embeddings)"
    return "the weight is missing"


def module_of(name: str) -> str:
    """The module path of an initializer."""
    parts = name.split(".")
    leaf = next((i for i, part in enumerate(parts) if part in ("weight", "bias", "codes")), len(parts) - 1)
    return ".".join(parts[:leaf])
