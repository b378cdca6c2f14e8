"""Compare every stored weight with the tensors of the checkpoint that it was made from.

Weights are read in chunks, so memory does not grow with the model. A float weight must hold the source's numbers,
rounded to its type. A quantized one must have the error that the manifest records.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import torch

from ...artifact import Manifest, TensorEntry
from ...contract import MODULE_KEY
from ...errors import ArtifactError
from ...models.checkpoint import Checkpoint
from ...models.heads import build
from ...models.loading.parameters import stored_name
from ..report.result import STORED, TensorError
from ..report.thresholds import LAST_BIT
from .carried import compare_codes, diagnose_codes, source_codes
from .comparison import Comparison, compare
from .diagnosis import WeightMismatch, diagnose
from .evidence import find_evidence
from .expected import Expected, expected_of
from .fold_scales import find_scales
from .folds import FOLDING_METHODS, MAX_UNCERTAINTY, FoldFactors, StoredWeight
from .reading.embeddings import UnsupportedUse
from .reading.five_bits import check_function
from .reading.layouts import Weight, weights_of
from .reading.stored import FloatWeight
from .rotary import check_rotary

FIVE_BITS = 5
"""Bits of the weights that a function of the graph joins."""

ROUNDING_METHODS = ("rtn", "awq")
"""Quantization methods under which every code is the nearest on its block's grid."""


def audit(
    folder: Path,
    manifest: Manifest,
    checkpoint: Checkpoint,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[TensorError, ...]:
    """Return the error of each weight in the manifest's order, then those that the artifact lacks.

    Args:
        advance: called with (numbers compared, numbers in total).

    Raises:
        ArtifactError: the graph or its data cannot be read as the manifest says, or the checkpoint is of another model.
    """
    path = Path(folder) / manifest.graph
    try:
        model = ir.load(path)
    except Exception as error:  # protobuf and onnx_ir raise exceptions of many types
        raise ArtifactError(f"{path} cannot be read ({error}); export the model again") from None
    return _Audit(path, manifest, checkpoint, model).run(advance)


class _Audit:
    """An audit of one artifact.

    Attributes:
        stored: by name of the initializer, its weight as each of its users reads it.
        faults: by name of the initializer, faults of how the graph uses it.
        via: the type that all numbers were rounded to before they were quantized, if any.
        factors: the scales that quantization methods folded into the weights.
    """

    def __init__(self, path: Path, manifest: Manifest, checkpoint: Checkpoint, model: ir.Model) -> None:
        self.path = path
        self.manifest = manifest
        self.checkpoint = checkpoint
        self.model = model
        self.initializers: Mapping[str, ir.Value] = model.graph.initializers
        self.stored: dict[str, list[StoredWeight]] = {}
        self.faults: dict[str, str] = {}
        for name, entry in manifest.tensors.items():
            if entry.sources:
                self._collect(name, entry)
        self.via = self._find_via()
        by_source = {source: stored[0] for stored in self.stored.values() for source in stored[0].entry.sources}
        self.factors: FoldFactors = find_scales(checkpoint, by_source, self.via)

    def run(self, advance: Callable[[int, int], None]) -> tuple[TensorError, ...]:
        entries = self.manifest.tensors
        total = sum(torch.Size(entry.shape).numel() for entry in entries.values() if entry.sources)
        found, done = [], 0
        for name, entry in entries.items():
            if entry.sources:
                found.append(self._compare(name, entry))
                done += found[-1].elements
                advance(done, total)
        found += check_rotary(self.path, self.manifest, self.checkpoint.config, self.model)
        return (*found, *self._missing())

    def _collect(self, name: str, entry: TensorEntry) -> None:
        """Collect the different ways in which the graph reads a weight."""
        if name not in self.initializers:
            raise ArtifactError(f"{self.path} has no initializer {name}; export the model again")
        readings: dict[Weight, ir.Node] = {}
        for value in self.initializers.values():
            if value.name != name and not self._shares_bytes(value, name):
                continue
            try:
                if entry.quantization is not None and entry.quantization.bits == FIVE_BITS:
                    check_function(self.model)
                for node, weight in weights_of(value, self.path.parent):
                    readings.setdefault(weight, node)
                    self._check_module(name, node)
            except UnsupportedUse as problem:
                self.faults.setdefault(name, f"the graph uses it in an unsupported way: {problem}")
        if not readings:
            self.faults.setdefault(name, "no operator uses it")
        expected = expected_of(self.checkpoint, entry.sources, name)
        for weight in readings:
            if weight.shape != expected.shape:
                fault = f"the graph reads it as {weight.shape}, and the checkpoint has {expected.shape}"
                self.faults.setdefault(name, fault)
            else:
                self.stored.setdefault(name, []).append(StoredWeight(name, entry, weight))

    def _shares_bytes(self, value: ir.Value, name: str) -> bool:
        """Return true for another initializer over the bytes of ``name`` that has no entry of its own."""
        if value.name in self.manifest.tensors:
            return False
        ours, other = self.initializers[name].const_value, value.const_value
        if not isinstance(ours, ir.ExternalTensor) or not isinstance(other, ir.ExternalTensor):
            return False
        return (ours.location, ours.offset) == (other.location, other.offset)

    def _check_module(self, name: str, node: ir.Node) -> None:
        """Check that the node that uses a weight carries the path of the weight's own module."""
        path, own = node.metadata_props.get(MODULE_KEY, ""), module_of(name)
        tied = self.checkpoint.config.tie_word_embeddings and own.endswith("embed_tokens")
        experts = node.op_type in ("MoE", "QMoE") and own.startswith(f"{path}.experts.")
        if path in ("", own) or (tied and path == "lm_head") or experts:
            return
        self.faults[name] = f"it is the weight of {own}, and {path} uses it"

    def _find_via(self) -> torch.dtype | None:
        """Return the type that all numbers were rounded to before; an artifact in fp16 may have been quantized.

        Vectors show it, apart from those that scales may be folded into: those in the layers.
        """
        quantized = [entry.quantization for entry in self.manifest.tensors.values() if entry.quantization]
        folding = any(quantization.method in FOLDING_METHODS for quantization in quantized)
        vectors = [
            stored[0]
            for stored in self.stored.values()
            if isinstance(stored[0].weight, FloatWeight)
            and stored[0].weight.shape[0] == 1
            and not (folding and ".layers." in f".{stored[0].name}")
        ]
        for via in (None, torch.float16, torch.bfloat16):
            expected = [
                replace(expected_of(self.checkpoint, vector.entry.sources, vector.name), via=via) for vector in vectors
            ]
            if all(compare(vector.weight, numbers).same for vector, numbers in zip(vectors, expected, strict=True)):
                return via
        return None

    def _compare(self, name: str, entry: TensorEntry) -> TensorError:
        expected = expected_of(self.checkpoint, entry.sources, name)
        expected = self.factors.apply(replace(expected, via=self.via))
        quantization = entry.quantization
        rounded = quantization is not None and quantization.method in ROUNDING_METHODS
        strict = rounded and expected.uncertainty < MAX_UNCERTAINTY
        comparisons = [
            (stored.weight, compare(stored.weight, _in_order(expected, stored.weight), strict=strict))
            for stored in self.stored.get(name, ())
        ]
        first = comparisons[0][1] if comparisons else None
        fault, exact = self._fault(name, entry, expected, comparisons), None
        error = first.relative_error if first is not None else 1.0
        if quantization is not None and quantization.method == STORED and name not in self.faults:
            wrong, exact = self._compare_codes(name, entry, expected)
            fault = wrong or fault
            # The same codes and scales; sums in another order differ in their last bit.
            error = 0.0 if exact and error < LAST_BIT else error
        blocks = first if quantization is not None else None
        return TensorError(
            name=name,
            module=module_of(name),
            precision=entry.precision,
            bits=quantization.bits if quantization else None,
            block_size=quantization.block_size if quantization else None,
            method=quantization.method if quantization else None,
            elements=expected.elements,
            error=error,
            recorded=quantization.error if quantization else None,
            kl_estimate=quantization.kl_estimate if quantization else None,
            worst_block=blocks.worst if blocks else None,
            worst_row=blocks.worst_row if blocks else None,
            fault=fault,
            exact=exact,
        )

    def _compare_codes(self, name: str, entry: TensorEntry, expected: Expected) -> tuple[str | None, bool]:
        """Compare a weight with the codes that the manifest says it has, those of the checkpoint.

        Returns:
            what differs, if anything; and whether scales and offsets are the same without a rounding.
        """
        assert entry.quantization is not None
        sources = source_codes(self.checkpoint, entry.sources)
        if isinstance(sources, str):
            return sources, False
        exact = True
        for stored in self.stored.get(name, ()):
            if isinstance(stored.weight, FloatWeight):
                return "the manifest says that it holds the checkpoint's own codes, and the graph has no codes", False
            rounded = entry.quantization.error > LAST_BIT
            dtype = getattr(torch, self.manifest.model.cache_dtype) if rounded else torch.float32
            found = compare_codes(stored.weight, sources, dtype)
            fault = diagnose_codes(stored.weight, expected, sources, found, self.checkpoint)
            if fault is not None:
                return fault, False
            exact &= not found.rounded
        return None, exact

    def _fault(
        self, name: str, entry: TensorEntry, expected: Expected, comparisons: list[tuple[Weight, Comparison]]
    ) -> str | None:
        if name in self.faults:
            return self.faults[name]
        folding_fault = next((self.factors.faults[s] for s in entry.sources if s in self.factors.faults), None)
        for weight, comparison in comparisons:
            if folding_fault and comparison.stored.any() and not comparison.not_finite.count:
                return folding_fault
            evidence = find_evidence(entry, weight, expected, comparison, divided=folding_fault is None)
            if evidence is not None:
                numbers = _in_order(expected, weight)
                return diagnose(WeightMismatch(name, entry, weight, numbers, comparison, evidence), self.checkpoint)
        return None

    def _missing(self) -> list[TensorError]:
        """Return an error for each tensor of the model that no initializer was made from."""
        config, task = self.checkpoint.config, self.manifest.task
        with torch.device("meta"):
            state = build(config, task).state_dict()
        stored = {source for entry in self.manifest.tensors.values() for source in entry.sources}
        found = []
        for name, parameter in state.items():
            tied = config.tie_word_embeddings and name == "lm_head.weight"
            source = stored_name(self.checkpoint, name, task)
            if source not in stored and not tied:
                fault = f"{_describe_missing(name)}: no initializer of the graph was made from {source}"
                error = TensorError(
                    name, module_of(name), "none", None, None, None, parameter.numel(), error=1.0, fault=fault
                )
                found.append(error)
        return found


def _in_order(expected: Expected, weight: Weight) -> Expected:
    """Return the expected numbers with their columns in the order of the weight's."""
    return expected if weight.order is None else replace(expected, order=torch.tensor(weight.order))


def _describe_missing(name: str) -> str:
    if name.endswith(".bias"):
        return "the bias is missing"
    if name.endswith("norm.weight"):
        return "the norm's weight is missing: the norm is skipped, or has no weight"
    if name == "lm_head.weight":
        return "the head has no weight of its own, as if it were the embedding (config.json has no tied embeddings)"
    return "the weight is missing"


def module_of(name: str) -> str:
    """Return the module path of an initializer."""
    parts = name.split(".")
    leaf = next((i for i, part in enumerate(parts) if part in ("weight", "bias", "codes")), len(parts) - 1)
    return ".".join(parts[:leaf])
