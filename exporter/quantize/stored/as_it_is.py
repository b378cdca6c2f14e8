"""The export of a quantized checkpoint as it is: its own codes, or a refusal that offers others with their size."""

from collections import Counter
from dataclasses import dataclass, fields

from ....artifact import Target, Task
from ....devices.presets import DeviceName
from ....errors import UnsupportedError, UsageError
from ....models.checkpoint import Checkpoint
from ....models.dtypes import TORCH_DTYPES
from ..decide import check_accuracy_level
from ..options import QuantizedPrecision, QuantizeOptions
from .plan import Plan, artifact_bytes, embedding_name, plan, weight_bytes
from .weights import StoredWeights

TAKEN = ("activations", "accuracy_level", "bits")
"""The options of a quantization that an export as it is takes."""


@dataclass(frozen=True)
class AsItIs:
    """An export of a checkpoint's own codes.

    Args:
        quantizer: the weights.
        precision: that of the artifact.
        note: what is carried over, in which formats and sizes, as a sentence.
    """

    quantizer: StoredWeights
    precision: QuantizedPrecision
    note: str


def prepare_stored(
    checkpoint: Checkpoint,
    task: Task,
    target: Target,
    options: QuantizeOptions,
    device: DeviceName | None = None,
) -> AsItIs | None:
    """Return the export of a checkpoint's own codes; None where it has none that the task reads.

    Raises:
        UsageError: an option that does not go with stored codes.
        UnsupportedError: a weight cannot be carried over; the message says which, and what to do.
        CheckpointError: as ``plan``.
    """
    found = plan(checkpoint, task, target, options, device)
    if not found.schemes and not found.refused:
        return None
    _check_options(checkpoint, target, options)
    if found.refused:
        raise _refusal(checkpoint, task, found)
    computes_in = TORCH_DTYPES[options.computes_in(device)]
    quantizer = StoredWeights(found.schemes, checkpoint.quantized, checkpoint, embedding_name(checkpoint), computes_in)
    return AsItIs(quantizer, found.precision, _note(checkpoint, found))


def _check_options(checkpoint: Checkpoint, target: Target, options: QuantizeOptions) -> None:
    """Check that no option asks for another quantization than the stored one.

    Raises:
        UsageError: one does.
    """
    default = QuantizeOptions()
    for field in fields(options):
        if field.name not in TAKEN and getattr(options, field.name) != getattr(default, field.name):
            raise UsageError(
                f"{field.name} is given, and the weights of {checkpoint.folder} are quantized already and exported as "
                "they are; leave it out, or give the precision to quantize them anew: --precision int4 or int8"
            )
    if options.accuracy_level is not None:
        check_accuracy_level(target)


def _refusal(checkpoint: Checkpoint, task: Task, found: Plan) -> UnsupportedError:
    name, reason = next(iter(found.refused.items()))
    others = len(found.refused) - 1
    more = "" if not others else f"; nor can {others} other weight{'s' if others > 1 else ''}"
    sizes = artifact_bytes(checkpoint, task)
    fp32, int8, int4 = (_shown(sizes[precision]) for precision in ("fp32", "int8", "int4"))
    return UnsupportedError(
        f"{checkpoint.folder}: {name} is stored as {checkpoint.quantized[name].format} and cannot be exported as it "
        f"is: {reason}{more}; export its numbers in another precision: --precision int8 ({int8}, advised), fp32 "
        f"({fp32}, without a loss) or int4 ({int4}, with the largest loss)"
    )


def _note(checkpoint: Checkpoint, found: Plan) -> str:
    """Say which formats became which, and what that does to their size."""
    formats = Counter(
        (checkpoint.quantized[name].format, f"int{scheme.format.bits}/{scheme.format.block_size}")
        for name, scheme in found.schemes.items()
    )
    parts = [f"{count} of {old} as {new}" for (old, new), count in formats.most_common()]
    before = sum(checkpoint.quantized[name].stored_bytes for name in found.schemes)
    after = sum(weight_bytes(scheme, checkpoint.tensors[name].shape) for name, scheme in found.schemes.items())
    return f"quantized weights keep their codes: {'; '.join(parts)}; {_shown(before)} became {_shown(after)}"


def _shown(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
