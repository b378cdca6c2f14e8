"""The weights of a quantized artifact: the format and error of each, by kind of projection, and in total."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from ...artifact import Manifest, Quantization, TensorEntry, json_object
from ...contract import BITS

HEADER = ("weight", "elements", "precision", "block", "zero", "method", "accuracy", "error", "KL")

KINDS = tuple("embed_tokens qkv_proj q_proj k_proj v_proj o_proj gate_proj up_proj down_proj lm_head".split())
"""The order of the kinds of projection; other kinds come last."""


PARTS = ("low_bits", "scales", "zero_points", "offsets", "order", "inverse_order")
"""The ends of the names of tensors that belong to a quantized weight's codes."""

PART_SUFFIXES = tuple(f" {part.replace('_', ' ')}" for part in PARTS)
"""The ends of the names of groups of such tensors."""


@dataclass(frozen=True)
class StoredWeight:
    """A matrix of a quantized artifact.

    Attributes:
        path: the path of its module.
        count: the number of the checkpoint's matrices in it; a packed projection has three.
        quantization: None if it is stored in float.
    """

    path: str
    shape: tuple[int, ...]
    precision: str
    count: int
    quantization: Quantization | None

    @property
    def kind(self) -> str:
        """The last component of the path, such as ``down_proj``: the same in each layer."""
        return self.path.rpartition(".")[2]

    @property
    def format(self) -> str:
        """The precision and block size, ``int4/32``; only the precision of a float."""
        return f"{self.precision}/{self.quantization.block_size}" if self.quantization else self.precision

    def to_json(self) -> dict[str, Any]:
        facts = asdict(self.quantization, dict_factory=json_object) if self.quantization else None
        return {"path": self.path, "shape": list(self.shape), "precision": self.precision, "quantization": facts}

    def to_row(self) -> tuple[object, ...]:
        """Return the values of the columns in HEADER."""
        common = (self.path, prod(self.shape), self.precision)
        quantization = self.quantization
        if quantization is None:
            return (*common, "-", "-", "-", "-", "-", "-")
        zero = "symmetric" if quantization.symmetric else "asymmetric"
        kl = "-" if quantization.kl_estimate is None else f"{quantization.kl_estimate:.2e}"
        error = f"{quantization.error:.4f}"
        return (*common, quantization.block_size, zero, quantization.method, quantization.accuracy_level, error, kl)


def stored_weights(manifest: Manifest) -> list[StoredWeight]:
    """Return the matrices of a quantized artifact, in the file's order; an empty list if it is not quantized."""
    if not any(entry.quantization for entry in manifest.tensors.values()):
        return []
    return [
        StoredWeight(_module_path(name), entry.shape, entry.precision, len(entry.sources), entry.quantization)
        for name, entry in manifest.tensors.items()
        if entry.sources and len(entry.shape) == 2
    ]


def part_of(name: str, manifest: Manifest) -> str | None:
    """Return ``low bits``, ``scales``, ``zero points``, ``offsets`` or an ``order`` of a quantized weight, or None."""
    if manifest.tensors[name].sources:
        return None
    for part in PARTS:
        owner, found, _ = name.rpartition(f".{part}")
        if found and manifest.tensors.get(f"{owner}.codes", _NONE).quantization:
            return part.replace("_", " ")
    return None


_NONE = TensorEntry("", (), ())


def stored_bytes(entry: TensorEntry, target: str) -> int:
    """Return the bytes of a tensor in the file. ONNX Runtime's operators need codes padded to whole blocks."""
    shape = entry.shape
    if entry.quantization and target == "ort":
        size = entry.quantization.block_size
        shape = (*shape[:-1], -(-shape[-1] // size) * size)
    return -(-prod(shape) * BITS.get(entry.precision, 0) // 8)


def bits_per_weight(manifest: Manifest) -> float:
    """Return the average bits per parameter, those in float included, with scales and zero points."""
    size = sum(
        stored_bytes(entry, manifest.target)
        for name, entry in manifest.tensors.items()
        if entry.sources or part_of(name, manifest)
    )
    return 8 * size / max(1, sum(prod(entry.shape) for entry in manifest.tensors.values() if entry.sources))


def estimated_kl(manifest: Manifest, weights: Sequence[StoredWeight]) -> float | None:
    """Return the sum of the estimated KL divergences of all quantized weights, in nats per token.

    None if they were not measured, or the model does not predict tokens: then they only rank the weights.
    """
    kls = [weight.quantization.kl_estimate for weight in weights if weight.quantization]
    known = [kl for kl in kls if kl is not None]
    if manifest.task != "text-generation" or not known or len(known) < len(kls):
        return None
    return sum(known)


def describe_formats(weights: Sequence[StoredWeight]) -> str:
    """Return ``int4: 140 weights, blocks of 32; int8: 29, blocks of 32 (20) and 64 (9)``, the most frequent first."""
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


def rows_by_kind(weights: Sequence[StoredWeight]) -> Iterator[tuple[str, str, str, str]]:
    """Yield for each kind of projection: its name, the count of each format, the mean error, the sum of the KLs."""
    kinds: dict[str, list[StoredWeight]] = {}
    for weight in weights:
        kinds.setdefault(weight.kind, []).append(weight)
    for kind in sorted(kinds, key=kind_order):
        members = kinds[kind]
        formats = Counter(weight.format for weight in members)
        listed = ", ".join(
            f"{count} {format}" for format, count in sorted(formats.items(), key=lambda f: (-f[1], f[0]))
        )
        found = [weight.quantization for weight in members if weight.quantization]
        error = f"error {100 * sum(q.error for q in found) / len(found):.2f} %" if found else ""
        kls = [q.kl_estimate for q in found if q.kl_estimate is not None]
        yield kind, listed, error, f"KL {sum(kls):.2e}" if kls else ""


def kind_order(kind: str) -> int:
    """Return the place of a kind of projection among the others."""
    return KINDS.index(kind) if kind in KINDS else len(KINDS)


def _module_path(name: str) -> str:
    """Return the path of the module of a tensor."""
    return name.removesuffix(".pairs").rpartition(".")[0] or name
