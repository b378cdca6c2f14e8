"""The quantized weights of a checkpoint: their formats, and what `export` would do with them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ...errors import CheckpointError, UnsupportedError
from ..sizes import size
from .weights import kind_order

if TYPE_CHECKING:
    from ...models.checkpoint import Checkpoint

AS_IT_IS = "auto"
"""The precision that keeps the weights as they are."""


@dataclass(frozen=True)
class StoredFormats:
    """The quantized weights of a checkpoint.

    Attributes:
        formats: the number of weights by format, the most frequent first.
        plain: the matrices that are not quantized, by the last part of their modules' paths.
        refused: why a weight cannot be exported as it is, by name.
        failure: why nothing can be exported.
        precision: of an artifact with the weights as they are.
        sizes: the estimated bytes of an artifact's weights by precision, ``auto`` for the weights as they are.
    """

    formats: Mapping[str, int]
    plain: Mapping[str, int]
    refused: Mapping[str, str] = field(default_factory=dict)
    failure: str | None = None
    precision: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def carried(self) -> bool:
        """`export` keeps every weight as it is."""
        return not self.refused and self.failure is None

    def to_json(self) -> dict[str, Any]:
        return {
            "quantized": {"formats": dict(self.formats), "not_quantized": dict(self.plain)},
            "export": {
                "as_it_is": "carried over" if self.carried else "refused",
                "precision": self.precision if self.carried else None,
                "refused": dict(self.refused),
                "error": self.failure,
                "bytes": dict(self.sizes),
            },
        }

    def to_lines(self) -> list[tuple[str, str]]:
        """Return the lines of `inspect`; a line with an empty name continues the one above."""
        formats = [f"{name} ({number})" for name, number in self.formats.items()]
        lines = [("quantized", formats[0]), *(("", one) for one in formats[1:])]
        if self.plain:
            plain = ", ".join(f"{name} ({number})" if number > 1 else name for name, number in self.plain.items())
            lines.append(("", f"not quantized: {plain}"))
        if self.failure is not None:
            return [*lines, ("export", f"refused: {self.failure}")]
        if self.refused:
            name, reason = next(iter(self.refused.items()))
            others = len(self.refused) - 1
            more = f", and {others} more" if others else ""
            lines.append(("export", f"as it is: refused: {name}{more}: {reason}"))
        else:
            lines.append(("export", f"as it is: carried over as {self.precision}, {size(self.sizes[AS_IT_IS])}"))
        offers = ", ".join(f"{name} {size(taken)}" for name, taken in self.sizes.items() if name != AS_IT_IS)
        return [*lines, ("", f"with --precision: {offers}")]


def stored_formats(checkpoint: "Checkpoint") -> StoredFormats | None:
    """Describe the quantized weights of a checkpoint; None where it has none. Codes are not read."""
    if not checkpoint.quantized:
        return None
    from ...exporter.quantize.stored.plan import artifact_bytes, plan

    formats = Counter(weight.format for weight in checkpoint.quantized.values())
    described = StoredFormats(dict(formats.most_common()), _not_quantized(checkpoint))
    try:
        found = plan(checkpoint, checkpoint.task)
        sizes = artifact_bytes(checkpoint, checkpoint.task, None if found.refused else found)
    except (CheckpointError, UnsupportedError) as error:
        return replace(described, failure=str(error))
    named: dict[str, int] = {} if None not in sizes else {AS_IT_IS: sizes[None]}
    named |= {"fp32": sizes["fp32"], "fp16": sizes["fp32"] // 2, "bf16": sizes["fp32"] // 2}
    named |= {"int8": sizes["int8"], "int4": sizes["int4"]}
    precision = None if found.refused else found.precision
    return replace(described, refused=found.refused, precision=precision, sizes=named)


def _not_quantized(checkpoint: "Checkpoint") -> Mapping[str, int]:
    """Return the number of matrices that are not quantized, by kind."""
    kinds = Counter(
        name.removesuffix(".weight").rpartition(".")[2]
        for name, info in checkpoint.tensors.items()
        if len(info.shape) == 2 and name not in checkpoint.quantized
    )
    return {kind: kinds[kind] for kind in sorted(kinds, key=kind_order)}
