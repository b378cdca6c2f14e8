"""The weights of a quantized artifact: what each became, by kind of projection, and what they take together."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from ...artifact import Manifest, Quantization, TensorEntry, json_object
from ...contract import BITS

"""Bits of an element, by the names of a manifest's tensors."""

HEADER = ("weight", "elements", "precision", "block", "zero", "method", "accuracy", "error", "damage")


KINDS = tuple("embed_tokens qkv_proj q_proj k_proj v_proj o_proj gate_proj up_proj down_proj lm_head".split())
"""The order in which they are told; others come last."""


@dataclass(frozen=True)
class Weight:
    """A matrix of the artifact; ``count`` is how many of the checkpoint's it holds (a packed projection holds three).

    ``quantization`` is None where it stayed in float.
    """

    path: str
    shape: tuple[int, ...]
    precision: str
    count: int
    quantization: Quantization | None

    @property
    def kind(self) -> str:
        """The last part of its path, ``down_proj``: what it has in common with those of other layers."""
        return self.path.rpartition(".")[2]

    @property
    def format(self) -> str:
        """``int4/32``: bits and block size; or the float's name."""
        return f"{self.precision}/{self.quantization.block_size}" if self.quantization else self.precision

    def to_json(self) -> dict[str, Any]:
        facts = asdict(self.quantization, dict_factory=json_object) if self.quantization else None
        return {"path": self.path, "shape": list(self.shape), "precision": self.precision, "quantization": facts}

    def to_row(self) -> tuple[object, ...]:
        """As under HEADER."""
        first = (self.path, prod(self.shape), self.precision)
        found = self.quantization
        if found is None:
            return (*first, "-", "-", "-", "-", "-", "-")
        zero = "symmetric" if found.symmetric else "asymmetric"
        damage = "-" if found.kl_estimate is None else f"{found.kl_estimate:.2e}"
        return (*first, found.block_size, zero, found.method, found.accuracy_level, f"{found.error:.4f}", damage)


def weights_of(manifest: Manifest) -> list[Weight]:
    """The matrices of a quantized artifact in the file's order; none of an artifact that is not quantized."""
    if not any(entry.quantization for entry in manifest.tensors.values()):
        return []
    return [
        Weight(_path(name), entry.shape, entry.precision, len(entry.sources), entry.quantization)
        for name, entry in manifest.tensors.items()
        if entry.sources and len(entry.shape) == 2
    ]


def part_of(name: str, manifest: Manifest) -> str | None:
    """Of a tensor that belongs to a quantized weight, what it is there: ``scales`` or ``zero points``; else None."""
    if manifest.tensors[name].sources:
        return None
    for part in ("scales", "zero_points"):
        owner, found, _ = name.rpartition(f".{part}")
        if found and manifest.tensors.get(f"{owner}.codes", _NONE).quantization:
            return part.replace("_", " ")
    return None


_NONE = TensorEntry("", (), ())


def stored_bytes(entry: TensorEntry, target: str) -> int:
    """What a tensor takes in the file; codes are padded to whole blocks where ONNX Runtime's operators want them so."""
    shape = entry.shape
    if entry.quantization and target == "ort":
        size = entry.quantization.block_size
        shape = (*shape[:-1], -(-shape[-1] // size) * size)
    return -(-prod(shape) * BITS.get(entry.precision, 0) // 8)


def bits_per_weight(manifest: Manifest) -> float:
    """Of all parameters, those in float too, with scales and zero points."""
    taken = sum(
        stored_bytes(entry, manifest.target)
        for name, entry in manifest.tensors.items()
        if entry.sources or part_of(name, manifest)
    )
    return 8 * taken / max(1, sum(prod(entry.shape) for entry in manifest.tensors.values() if entry.sources))


def estimated_kl(manifest: Manifest, weights: Sequence[Weight]) -> float | None:
    """Nats per token, the damages of all quantized weights together; None where they were not measured, or say only
    which weight matters more, as those of heads without next tokens do."""
    damages = [weight.quantization.kl_estimate for weight in weights if weight.quantization]
    known = [damage for damage in damages if damage is not None]
    if manifest.task != "text-generation" or not known or len(known) < len(damages):
        return None
    return sum(known)


def in_words(weights: Sequence[Weight]) -> str:
    """``int4: 140 weights, blocks of 32; int8: 29, blocks of 32 (20) and 64 (9)``: the most frequent first."""
    by_precision: dict[str, Counter[int | None]] = {}
    for weight in weights:
        blocks = by_precision.setdefault(weight.precision, Counter())
        blocks[weight.quantization.block_size if weight.quantization else None] += weight.count
    parts: list[str] = []
    for precision, blocks in sorted(by_precision.items(), key=lambda item: -item[1].total()):
        number = blocks.total()
        text = f"{precision}: {number}" + ("" if parts else " weight" if number == 1 else " weights")
        sizes = sorted((size, count) for size, count in blocks.items() if size is not None)
        if len(sizes) == 1:
            text += f", blocks of {sizes[0][0]}"
        elif sizes:
            named = [f"{size} ({count})" for size, count in sizes]
            text += f", blocks of {', '.join(named[:-1])} and {named[-1]}"
        parts.append(text)
    return "; ".join(parts)


def by_kind(weights: Sequence[Weight]) -> Iterator[tuple[str, str, str, str]]:
    """For each kind of projection: its name, how many are in which format, their mean error, their damage together."""
    kinds: dict[str, list[Weight]] = {}
    for weight in weights:
        kinds.setdefault(weight.kind, []).append(weight)
    for kind in sorted(kinds, key=lambda kind: KINDS.index(kind) if kind in KINDS else len(KINDS)):
        several = kinds[kind]
        formats = Counter(weight.format for weight in several)
        listed = ", ".join(
            f"{count} {format}" for format, count in sorted(formats.items(), key=lambda f: (-f[1], f[0]))
        )
        found = [weight.quantization for weight in several if weight.quantization]
        error = f"error {100 * sum(q.error for q in found) / len(found):.2f} %" if found else ""
        damages = [q.kl_estimate for q in found if q.kl_estimate is not None]
        yield kind, listed, error, f"damage {sum(damages):.2e}" if damages else ""


def _path(name: str) -> str:
    """The module that a tensor belongs to."""
    return name.removesuffix(".pairs").rpartition(".")[0] or name
