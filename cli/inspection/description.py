"""What `intaglio inspect` says of a checkpoint or an artifact, as data, as lines for people, and as JSON."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..show import size
from .weights import Weight, by_kind, in_words

COMPUTED = " computed"
"""Ends the names of groups that hold what follows from the config: rotary frequencies, constants."""

PARTS = (" scales", " zero points")
"""End the names of groups that belong to quantized weights."""


@dataclass(frozen=True)
class Group:
    """The tensors of one precision and origin: how many, and how many elements and bytes they hold together."""

    tensors: int
    elements: int
    bytes: int


@dataclass(frozen=True)
class Description:
    """A model as `inspect` shows it.

    ``runs_as`` is the precision in which the weights are held in memory, ``cache_bits`` those of one key or value
    element (None without a cache), ``windowed`` whether sliding layers keep only their window of it, ``more`` what only
    a checkpoint or only an artifact has. ``weights`` are those of a quantized artifact, ``bits_per_weight`` what they
    take with all that belongs to them, ``kl`` the estimate of their damage in nats per token.
    """

    path: str
    kind: str
    family: str
    task: str
    groups: Mapping[str, Group]
    vocab_size: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    layer_windows: Sequence[int | None]
    context_length: int
    labels: Sequence[str]
    runs_as: str
    resident_bytes: int
    cache_bits: int | None
    windowed: bool
    more: Mapping[str, Any]
    weights: Sequence[Weight] = ()
    bits_per_weight: float | None = None
    kl: float | None = None

    @property
    def parameters(self) -> int:
        return sum(group.elements for name, group in self.groups.items() if not name.endswith((COMPUTED, *PARTS)))

    def cache_bytes(self, tokens: int, *, windowed: bool) -> int | None:
        """Bytes of the KV cache of one sequence; where not ``windowed``, every layer keeps all of it."""
        if self.cache_bits is None:
            return None
        from ...runtime.graph.sliding import kept_positions

        layers = self.layer_windows
        positions = kept_positions(layers, tokens) if windowed else tokens * len(layers)
        return 2 * positions * self.num_key_value_heads * self.head_dim * self.cache_bits // 8

    def to_json(self, lengths: Sequence[int]) -> dict[str, Any]:
        caches = [
            {
                "tokens": n,
                "bytes": self.cache_bytes(n, windowed=self.windowed),
                "bytes_without_windows": self.cache_bytes(n, windowed=False),
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
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": len(self.layer_windows),
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "layer_windows": list(self.layer_windows),
            "context_length": self.context_length,
            "labels": list(self.labels),
            "memory": {"precision": self.runs_as, "weight_bytes": self.resident_bytes, "kv_cache": caches},
            **self._weights_to_json(),
            **self.more,
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
        weights = sum(group.bytes for group in self.groups.values())
        lines = [
            (self.kind, self.path),
            ("model", f"{self.family}, {self.task}"),
            ("parameters", f"{self.parameters:,}, {size(weights)}"),
        ]
        for name, group in self.groups.items():
            lines.append(("", f"{name}: {group.elements:,} in {count(group.tensors, 'tensor')}, {size(group.bytes)}"))
        lines += self._weights_to_lines()
        heads = f"{self.num_attention_heads} heads, {self.num_key_value_heads} for keys and values, of {self.head_dim}"
        lines += [
            (
                "shape",
                f"{count(len(self.layer_windows), 'layer')}, hidden {self.hidden_size}, vocabulary {self.vocab_size:,}",
            ),
            ("", heads),
            ("attention", windows(self.layer_windows)),
            ("context", f"{self.context_length:,} tokens"),
        ]
        lines.append(("memory", f"{size(self.resident_bytes)} of weights as {self.runs_as}"))
        for tokens in lengths:
            cache, whole = (self.cache_bytes(tokens, windowed=windowed) for windowed in (self.windowed, False))
            if cache is not None and whole is not None:
                together = size(cache + self.resident_bytes)
                saved = f" ({cache / whole:.1%} of a cache without windows)" if cache < whole else ""
                lines.append(("", f"+ {size(cache)} of KV cache at {tokens:,} tokens = {together}{saved}"))
        if self.labels:
            lines.append(("labels", ", ".join(self.labels)))
        for name, value in self.more.items():
            # A no-break space keeps a name and its value on one line.
            pairs = [f"{k}\u00a0{v}" for k, v in value.items()] if isinstance(value, Mapping) else [str(value)]
            first, *rest = textwrap.wrap(", ".join(pairs), 90, break_on_hyphens=False) or [""]
            lines += [(name, first), *(("", line) for line in rest)]
        return [(name, text.replace("\u00a0", " ")) for name, text in lines]

    def _weights_to_lines(self) -> list[tuple[str, str]]:
        """What became of each kind of projection, in columns."""
        if not self.weights:
            return []
        lines = [("weights", f"{in_words(self.weights)}; {self.bits_per_weight:.2f} bits per weight")]
        rows = list(by_kind(self.weights))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append(("", "  ".join(cells).rstrip()))
        if self.kl is not None:
            lines.append(("damage", f"{self.kl:.3g} nats per token, as estimated"))
        return lines


def group(tensors: Iterable[tuple[str, int, int]]) -> dict[str, Group]:
    """(name, elements, bytes) of tensors added up by name, the largest group first."""
    tensor_count: Counter[str] = Counter()
    elements: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for name, number, size_ in tensors:
        tensor_count[name] += 1
        elements[name] += number
        taken[name] += size_
    return {name: Group(tensor_count[name], total, taken[name]) for name, total in elements.most_common()}


def count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def windows(layers: Sequence[int | None]) -> str:
    """Which layers slide: ``global in every layer``, or ``window 4,096 in layers 0-2, 4-6; global in 3, 7``."""
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
        places = ", ".join("-".join(map(str, run)) for run in runs)
        several = "s" if len(runs) > 1 or len(runs[0]) > 1 else ""
        what = "global" if kind is None else f"window {kind:,}"
        parts.append(f"{what} in layer{several} {places}")
    return "; ".join(parts)
