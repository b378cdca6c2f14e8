"""What `intaglio inspect` says of a checkpoint or an artifact, as data, as lines for people, and as JSON."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .show import size

# Bits of one element, by the names that artifacts and safetensors headers use.
BITS: Mapping[str, int] = {
    "fp64": 64, "F64": 64, "int64": 64, "I64": 64,
    "fp32": 32, "F32": 32, "int32": 32, "I32": 32,
    "fp16": 16, "F16": 16, "bf16": 16, "BF16": 16,
    "int8": 8, "I8": 8, "uint8": 8, "U8": 8, "bool": 8, "BOOL": 8,
    "int4": 4, "uint4": 4,
}  # fmt: skip


COMPUTED = " computed"  # ends the names of groups that hold no parameters: tables, constants


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
    element (None without a cache), ``more`` what only a checkpoint or only an artifact has.
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
    more: Mapping[str, Any]

    @property
    def parameters(self) -> int:
        return sum(group.elements for name, group in self.groups.items() if not name.endswith(COMPUTED))

    def cache_bytes(self, tokens: int) -> int | None:
        """Bytes of the KV cache of one sequence of ``tokens``: every layer keeps all of them, sliding ones too."""
        if self.cache_bits is None:
            return None
        per_token = 2 * len(self.layer_windows) * self.num_key_value_heads * self.head_dim * self.cache_bits // 8
        return per_token * tokens

    def to_json(self, lengths: Sequence[int]) -> dict[str, Any]:
        caches = [{"tokens": n, "bytes": self.cache_bytes(n)} for n in lengths if self.cache_bits is not None]
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
            **self.more,
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
            if (cache := self.cache_bytes(tokens)) is not None:
                together = size(cache + self.resident_bytes)
                lines.append(("", f"+ {size(cache)} of KV cache at {tokens:,} tokens = {together}"))
        if self.labels:
            lines.append(("labels", ", ".join(self.labels)))
        for name, value in self.more.items():
            # A no-break space keeps a name and its value on one line.
            pairs = [f"{k}\u00a0{v}" for k, v in value.items()] if isinstance(value, Mapping) else [str(value)]
            first, *rest = textwrap.wrap(", ".join(pairs), 90, break_on_hyphens=False) or [""]
            lines += [(name, first), *(("", line) for line in rest)]
        return [(name, text.replace("\u00a0", " ")) for name, text in lines]


def group(tensors: Sequence[tuple[str, Sequence[int]]]) -> dict[str, Group]:
    """(precision, shape) pairs added up by precision, the largest group first."""
    tensor_count: Counter[str] = Counter()
    elements: Counter[str] = Counter()
    for precision, shape in tensors:
        product = 1
        for length in shape:
            product *= length
        tensor_count[precision] += 1
        elements[precision] += product
    return {
        name: Group(tensor_count[name], total, (total * BITS.get(name.removesuffix(COMPUTED), 0) + 7) // 8)
        for name, total in elements.most_common()
    }


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
