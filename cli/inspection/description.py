"""The description of a checkpoint or an artifact that `intaglio inspect` prints, as text or as JSON."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ...contract import BITS
from ..sizes import size
from .quantized import StoredFormats
from .weights import PART_SUFFIXES, StoredWeight, describe_formats, rows_by_kind

if TYPE_CHECKING:
    from ...devices.runtimes import Support

COMPUTED = " computed"
"""The suffix of groups of tensors that are computed from the config: rotary frequencies, constants."""


@dataclass(frozen=True)
class TensorGroup:
    """The number of tensors of one precision and origin, and the sums of their elements and bytes."""

    tensors: int
    elements: int
    bytes: int


class Architecture(Protocol):
    """The sizes of a model, from a checkpoint's config or an artifact's manifest."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def num_attention_heads(self) -> int: ...
    @property
    def num_key_value_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def layer_windows(self) -> Sequence[int | None]: ...
    @property
    def context_length(self) -> int: ...
    @property
    def causal(self) -> bool: ...


@dataclass(frozen=True)
class Description:
    """The facts of a model that `inspect` prints.

    Attributes:
        kind: ``checkpoint`` or ``artifact``.
        groups: its tensors, by precision and origin.
        labels: the labels of a classification head.
        memory_precision: the precision of the weights in memory.
        resident_bytes: the bytes of the weights in memory.
        cache_bits: the bits of one key or value element; None without a KV cache.
        windowed: sliding layers keep only their window in the KV cache, which may be int8: target `ort`.
        details: facts that only a checkpoint or only an artifact has.
        weights: the weights of a quantized artifact.
        bits_per_weight: average over all parameters, with scales and zero points.
        kl: estimated KL divergence of the quantization, in nats per token.
        notes: how the checkpoint is read where its files leave that open.
        runtimes: what each runtime makes of the artifact; None where that is not known.
        stored: the weights that a checkpoint stores quantized, and what `export` would do with them.
    """

    path: str
    kind: str
    family: str
    task: str
    groups: Mapping[str, TensorGroup]
    architecture: Architecture
    labels: Sequence[str]
    memory_precision: str
    resident_bytes: int
    cache_bits: int | None
    windowed: bool
    details: Mapping[str, Any]
    weights: Sequence[StoredWeight] = ()
    bits_per_weight: float | None = None
    kl: float | None = None
    notes: Sequence[str] = ()
    runtimes: "Sequence[Support] | None" = None
    stored: StoredFormats | None = None

    @property
    def parameters(self) -> int:
        """The number of the checkpoint's parameters."""
        return sum(
            group.elements for name, group in self.groups.items() if not name.endswith((COMPUTED, *PART_SUFFIXES))
        )

    def cache_bytes(self, tokens: int, *, windowed: bool) -> int | None:
        """Return the bytes of one sequence's KV cache; unless ``windowed``, every layer keeps all tokens."""
        if self.cache_bits is None:
            return None
        width = self.architecture.head_dim * self.cache_bits // 8
        return self._rows(tokens, windowed) * width

    def int8_cache_bytes(self, tokens: int) -> int | None:
        """Return the bytes of one sequence's KV cache with ``kv_cache="int8"``; None where there is none."""
        from ...runtime.kernels.edits.int8_cache import fits, row_bytes

        if not (self.windowed and self.cache_bits == BITS["fp32"] and fits(self.architecture)):
            return None
        return self._rows(tokens, windowed=True) * row_bytes(self.architecture)

    def _rows(self, tokens: int, windowed: bool) -> int:
        """Return the number of keys and values of one sequence, counted over heads and layers."""
        from ...runtime.graph.sliding import kept_positions

        layers = self.architecture.layer_windows
        positions = kept_positions(layers, tokens) if windowed else tokens * len(layers)
        return 2 * positions * self.architecture.num_key_value_heads

    def to_json(self, lengths: Sequence[int]) -> dict[str, Any]:
        """Return the description as JSON values, with the KV cache at these numbers of tokens."""
        sizes = self.architecture
        caches = [
            {
                "tokens": n,
                "bytes": self.cache_bytes(n, windowed=self.windowed),
                "bytes_without_windows": self.cache_bytes(n, windowed=False),
                "bytes_as_int8": self.int8_cache_bytes(n),
            }
            for n in lengths
            if self.cache_bits is not None
        ]
        return {
            "path": self.path,
            "kind": self.kind,
            "family": self.family,
            "task": self.task,
            "parameters": self.parameters,
            "weight_bytes": sum(group.bytes for group in self.groups.values()),
            "precisions": {name: vars(group) for name, group in self.groups.items()},
            "vocab_size": sizes.vocab_size,
            "hidden_size": sizes.hidden_size,
            "num_hidden_layers": len(sizes.layer_windows),
            "num_attention_heads": sizes.num_attention_heads,
            "num_key_value_heads": sizes.num_key_value_heads,
            "head_dim": sizes.head_dim,
            "layer_windows": list(sizes.layer_windows),
            "attention": "causal" if sizes.causal else "bidirectional",
            "context_length": sizes.context_length,
            "labels": list(self.labels),
            "memory": {"precision": self.memory_precision, "weight_bytes": self.resident_bytes, "kv_cache": caches},
            **self._weights_to_json(),
            **(self.stored.to_json() if self.stored is not None else {}),
            **({"notes": list(self.notes)} if self.notes else {}),
            **self.details,
            **({"runtimes": [asdict(support) for support in self.runtimes]} if self.runtimes is not None else {}),
        }

    def _weights_to_json(self) -> dict[str, Any]:
        if not self.weights:
            return {}
        return {
            "bits_per_weight": self.bits_per_weight,
            "estimated_kl": self.kl,
            "weights": [weight.to_json() for weight in self.weights],
        }

    def to_lines(self, lengths: Sequence[int]) -> list[tuple[str, str]]:
        """Return the description as (name, value) lines; a line with an empty name continues the one above."""
        sizes = self.architecture
        weights = sum(group.bytes for group in self.groups.values())
        lines = [
            (self.kind, self.path),
            ("model", f"{self.family}, {self.task}"),
            ("parameters", f"{self.parameters:,}, {size(weights)}"),
        ]
        for name, group in self.groups.items():
            lines.append(("", f"{name}: {group.elements:,} in {_plural(group.tensors, 'tensor')}, {size(group.bytes)}"))
        lines += self._weights_to_lines()
        for name, text in self.stored.to_lines() if self.stored is not None else ():
            first, *rest = textwrap.wrap(text, 90, break_on_hyphens=False)
            lines += [(name, first), *(("", line) for line in rest)]
        layers = _plural(len(sizes.layer_windows), "layer")
        kv_heads = _plural(sizes.num_key_value_heads, "KV head")
        heads = f"{sizes.num_attention_heads} heads, {kv_heads}, head_dim {sizes.head_dim}"
        lines += [
            ("shape", f"{layers}, hidden {sizes.hidden_size}, vocabulary {sizes.vocab_size:,}"),
            ("", heads),
            ("attention", describe_windows(sizes.layer_windows) if sizes.causal else "bidirectional in every layer"),
            ("context", f"{sizes.context_length:,} tokens"),
        ]
        lines.append(("memory", f"{size(self.resident_bytes)} of weights as {self.memory_precision}"))
        for tokens in lengths:
            cache, whole = (self.cache_bytes(tokens, windowed=windowed) for windowed in (self.windowed, False))
            if cache is not None and whole is not None:
                total = size(cache + self.resident_bytes)
                notes = [f"{cache / whole:.1%} of one without windows"] if cache < whole else []
                small = self.int8_cache_bytes(tokens)
                notes += [f"{size(small)} as int8"] if small is not None else []
                told = f" ({'; '.join(notes)})" if notes else ""
                lines.append(("", f"+ {size(cache)} of KV cache at {tokens:,} tokens = {total}{told}"))
        if self.labels:
            lines.append(("labels", ", ".join(self.labels)))
        for name, value in self.details.items():
            # A no-break space keeps a name and its value on the same line.
            pairs = [f"{k}\u00a0{_shown(v)}" for k, v in value.items()] if isinstance(value, Mapping) else [str(value)]
            first, *rest = textwrap.wrap(", ".join(pairs), 90, break_on_hyphens=False) or [""]
            lines += [(name, first), *(("", line) for line in rest)]
        for note in self.notes:
            first, *rest = textwrap.wrap(note, 90, break_on_hyphens=False)
            lines += [("note", first), *(("", line) for line in rest)]
        for number, support in enumerate(self.runtimes or ()):
            first, *rest = textwrap.wrap(_support_to_text(support), 90)
            lines += [("" if number else "runtimes", first), *(("", f"  {line}") for line in rest)]
        return [(name, text.replace("\u00a0", " ")) for name, text in lines]

    def _weights_to_lines(self) -> list[tuple[str, str]]:
        """Return the formats of the quantized weights: in total, and in columns by kind of projection."""
        if not self.weights:
            return []
        lines = [("weights", f"{describe_formats(self.weights)}; {self.bits_per_weight:.2f} bits per weight")]
        rows = list(rows_by_kind(self.weights))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append(("", "  ".join(cells).rstrip()))
        if self.kl is not None:
            lines.append(("KL", f"{self.kl:.3g} nats per token, estimated"))
        return lines


def group_tensors(tensors: Iterable[tuple[str, int, int]]) -> dict[str, TensorGroup]:
    """Add up (group name, elements, bytes) of tensors by group, the largest group first."""
    tensor_count: Counter[str] = Counter()
    elements: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for name, number, size_ in tensors:
        tensor_count[name] += 1
        elements[name] += number
        taken[name] += size_
    return {name: TensorGroup(tensor_count[name], total, taken[name]) for name, total in elements.most_common()}


def _support_to_text(support: "Support") -> str:
    """Return ``OpenVINO: runs``, or with the first reason why not and the number of the others."""
    text = f"{support.runtime}: {support.verdict}"
    if support.reasons:
        text += f": {support.reasons[0].what}"
    if len(support.reasons) > 1:
        text += f" (and {len(support.reasons) - 1} more; --json lists them)"
    return text


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _plural(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def describe_windows(layers: Sequence[int | None]) -> str:
    """Return ``global in every layer``, or ``window 4,096 in layers 0-2, 4-6; global in 3, 7``."""
    kinds = sorted(set(layers), key=lambda window: (window is None, window))
    if len(kinds) == 1:
        return "global in every layer" if kinds[0] is None else f"window {kinds[0]:,} in every layer"
    parts = []
    for kind in kinds:
        runs: list[list[int]] = []
        for i in (i for i, window in enumerate(layers) if window == kind):
            if runs and runs[-1][-1] == i - 1:
                runs[-1][1:] = [i]
            else:
                runs.append([i])
        indices = ", ".join("-".join(map(str, run)) for run in runs)
        plural = "s" if len(runs) > 1 or len(runs[0]) > 1 else ""
        what = "global" if kind is None else f"window {kind:,}"
        parts.append(f"{what} in layer{plural} {indices}")
    return "; ".join(parts)
