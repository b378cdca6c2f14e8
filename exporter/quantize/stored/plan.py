"""What an export as it is does with each quantized weight, and how large each export of the checkpoint is."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ....artifact import Precision, Target, Task
from ....devices.findings import REFUSED, findings
from ....devices.presets import PRESETS, TITLES, DeviceName
from ....devices.rules import MatMul
from ....errors import CheckpointError
from ....models.checkpoint import Checkpoint
from ....models.heads import build
from ....models.loading.parameters import check_parameters, stored_name
from ....models.quantized.weights import QuantizedWeight
from ....models.weight_source import LM_HEAD, WeightSource
from ..allocation.candidates import candidates
from ..allocation.mix import BITS_PER_WEIGHT
from ..allocation.uniform import uniform
from ..formats.blocks import BITS
from ..formats.scheme import Scheme
from ..options import QuantizedPrecision, QuantizeOptions
from .grid import GridError, fit_grid

SCALE_BYTES = {"float16": 2, "float32": 4}


@dataclass(frozen=True)
class Plan:
    """The quantized weights that a task reads.

    Args:
        schemes: the formats of those that are carried over, by tensor.
        refused: why the others cannot be, by tensor.
    """

    schemes: Mapping[str, Scheme]
    refused: Mapping[str, str]

    @property
    def precision(self) -> QuantizedPrecision:
        """The precision of the artifact: int4 where any weight has 4 bits."""
        return "int4" if any(scheme.format.bits == 4 for scheme in self.schemes.values()) else "int8"


def plan(
    checkpoint: Checkpoint,
    task: Task,
    target: Target = "ort",
    options: QuantizeOptions = QuantizeOptions(),  # noqa: B008 - it is frozen
    device: DeviceName | None = None,
) -> Plan:
    """Fit every quantized weight that the task reads; scales and zero points are read, and no codes.

    Raises:
        CheckpointError, UnsupportedError: the tensors are not those of the task's module, or are damaged.
    """
    schemes: dict[str, Scheme] = {}
    refused: dict[str, str] = {}
    preset = None if device is None else PRESETS[device].accuracy_level
    level = 4 if preset is None else preset
    if options.accuracy_level is not None:
        level = options.accuracy_level
    five_bits = 5 in (options.bits or BITS) and 5 in options.kernels_bits(target, device)
    for name in task_tensors(checkpoint, task):
        weight = checkpoint.quantized.get(name)
        if weight is None:
            continue
        fitted = _scheme(checkpoint, name, weight, level, five_bits=five_bits)
        reason = fitted if isinstance(fitted, str) else None
        if isinstance(fitted, Scheme):
            if device is not None and target == "ort":
                reason = _device_reason(device, fitted, checkpoint.tensors[name].shape, options)
            schemes[name] = fitted
        if reason is not None:
            schemes.pop(name, None)
            refused[name] = reason
    return Plan(schemes, refused)


def task_tensors(source: WeightSource, task: Task) -> tuple[str, ...]:
    """Return the tensors of a source that a task reads, each once.

    Raises:
        CheckpointError, UnsupportedError: the tensors are not those of the task's module.
    """
    with torch.device("meta"):
        module = build(source.config, task)
    check_parameters(source, task, module)
    names = (stored_name(source, name, task) for name in module.state_dict())
    tied = source.config.tie_word_embeddings
    return tuple(dict.fromkeys(name for name in names if not (tied and name == LM_HEAD)))


def artifact_bytes(checkpoint: Checkpoint, task: Task, found: Plan | None = None) -> dict[Precision | None, int]:
    """Estimate the size of the weights' file by precision; None is the key of an export as it is.

    Args:
        found: what such an export does; None leaves it out.
    """
    numbers = {name: torch.Size(checkpoint.tensors[name].shape).numel() for name in task_tensors(checkpoint, task)}
    quantizable = candidates(checkpoint, task)
    float_bytes = 4 * (sum(numbers.values()) - sum(candidate.size for candidate in quantizable))
    int8 = uniform(quantizable, "int8", QuantizeOptions(), "rtn")
    sizes: dict[Precision | None, int] = {
        "fp32": 4 * sum(numbers.values()),
        "int8": float_bytes + sum(int8[one.tensor].format.bytes(*one.shape, 2) for one in quantizable),
        "int4": float_bytes + int(sum(one.size for one in quantizable) * BITS_PER_WEIGHT / 8),
    }
    if found is not None:
        sizes[None] = sum(4 * number for name, number in numbers.items() if name not in found.schemes)
        sizes[None] += sum(weight_bytes(one, checkpoint.tensors[name].shape) for name, one in found.schemes.items())
    return sizes


def _scheme(checkpoint: Checkpoint, name: str, weight: QuantizedWeight, level: int, *, five_bits: bool) -> Scheme | str:
    """Return the scheme of a weight, or the reason why it has none."""
    grid = weight.grid
    if grid is None:
        return "its numbers are not whole multiples of a scale"
    rows, columns = weight.info.shape
    try:
        looked_up = name == embedding_name(checkpoint)
        fitted = fit_grid(grid, (rows, columns), looked_up=looked_up, five_bits=five_bits)
    except GridError as error:
        return str(error)
    _check_finite(weight, name, fitted.scales, fitted.offsets)
    return fitted.scheme(level)


def _check_finite(weight: QuantizedWeight, name: str, *found: Tensor | None) -> None:
    for values in found:
        if values is not None and not values.isfinite().all():
            raise CheckpointError(
                f"{weight.info.file}: {name} ({weight.format}) has a scale or an offset that is NaN or infinite; the "
                "checkpoint is damaged: fetch it again"
            )


def _device_reason(device: DeviceName, scheme: Scheme, shape: tuple[int, ...], options: QuantizeOptions) -> str | None:
    """Return why a device does not run a weight, or None."""
    format = scheme.format
    matmul = MatMul(
        format.bits,
        format.block_size,
        shape[0],
        shape[1],
        activations=options.computes_in(device),
        symmetric=format.symmetric,
        accuracy_level=scheme.accuracy_level,
    )
    broken = next((one for one in findings(device, matmuls=[matmul]) if one.effect in REFUSED), None)
    return None if broken is None else f"{TITLES[device]} does not run it: {broken.reason} ({broken.source})"


def embedding_name(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.trunk_prefix}embed_tokens.weight"


def weight_bytes(scheme: Scheme, shape: tuple[int, ...]) -> int:
    size = scheme.format.bytes(shape[0], shape[1], SCALE_BYTES[scheme.scale_type])
    if scheme.offset_type is not None:
        size += shape[0] * scheme.format.blocks(shape[1]) * SCALE_BYTES[scheme.offset_type]
    return size
