"""The first step of a quantization: choose the method and formats of each weight from options and headers."""

from dataclasses import dataclass

from ...artifact import FloatPrecision, Target, Task
from ...devices.presets import DeviceName
from ...errors import UsageError
from ...models.weight_source import WeightSource
from .allocation.candidates import Candidate, candidates, kept
from .allocation.mix import check_target_size
from .allocation.uniform import uniform
from .calibration import WINDOWS, Calibration
from .fit import fit
from .formats.scheme import Schemes
from .options import Method, QuantizedPrecision, QuantizeOptions
from .texts.generated import check_generates
from .texts.names import DEFAULT, SELF


@dataclass(frozen=True)
class Decision:
    """The decision: which weights to quantize, by which method, in which formats.

    Args:
        candidates: the weights that may be quantized.
        method: the method; never "auto".
        schemes: every weight in the same bits.
        mixes: bits are to be mixed by sensitivity; ``schemes`` are then replaced after measuring.
        calibration: the texts to read; None where weights are only rounded.
        device: the device that the artifact is made for.
    """

    task: Task
    target: Target
    options: QuantizeOptions
    candidates: list[Candidate]
    method: Method
    schemes: Schemes
    mixes: bool
    calibration: Calibration | None
    device: DeviceName | None = None


def decide(
    checkpoint: WeightSource,
    task: Task,
    target: Target,
    precision: QuantizedPrecision,
    options: QuantizeOptions,
    device: DeviceName | None = None,
) -> Decision:
    """Choose method and formats; no weights are read.

    Raises:
        UsageError: options that contradict each other or the model.
        CheckpointError, UnsupportedError: the tensors are not those of the task's module.
    """
    found = candidates(checkpoint, task)
    kept(found, options.keep)  # rejects a pattern without a match before any long work starts
    activations = options.computes_in(device)
    found = fit(found, device, target, precision, options, activations)
    check_target_size(found, options)
    if options.target_kl is not None and task != "text-generation":
        raise UsageError(f"target KL is a measure of next tokens, and the task is {task}; give a target size")
    if options.accuracy_level is not None:
        check_accuracy_level(target)
    if options.method == "smoothquant":
        _check_smoothquant(target, precision, options, activations)
    targeted = options.target_size is not None or options.target_kl is not None
    mixes = targeted or (precision == "int4" and options.method == "auto")
    if options.bits is not None and not mixes:
        raise UsageError(
            f"bits {', '.join(map(str, options.bits))} are given, and nothing is mixed; give a target size or KL, or "
            "leave them out"
        )
    method = options.method
    if method == "auto":
        method = "gptq" if precision == "int4" or mixes else "rtn"
    calibration = None
    if mixes or method != "rtn":
        texts = options.texts or (DEFAULT,)
        if SELF in texts:
            check_generates(task)
        calibration = Calibration(texts, options.windows or WINDOWS)
    elif options.texts:
        raise UsageError(
            "--calibration is given, and rounding to the nearest reads no text; use `intaglio quantize --method gptq`, "
            "or leave it out"
        )
    return Decision(
        task, target, options, found, method, uniform(found, precision, options, method), mixes, calibration, device
    )


def check_accuracy_level(target: Target) -> None:
    """Check that a target has accuracy levels.

    Raises:
        UsageError: it has none.
    """
    if target != "ort":
        raise UsageError(
            "accuracy level is an attribute of MatMulNBits, an operator of target ort; leave it out for target standard"
        )


def _check_smoothquant(
    target: Target, precision: QuantizedPrecision, options: QuantizeOptions, activations: FloatPrecision
) -> None:
    """Check that the other options are compatible with SmoothQuant.

    Raises:
        UsageError: an option is not compatible.
    """
    if precision != "int8" or target != "ort" or activations != "fp32":
        raise UsageError(
            "method smoothquant uses integer matrix multiplications of ONNX Runtime's CPU kernels: it is for "
            "--precision int8, --target ort and --activations fp32; leave the method out for others"
        )
    if options.target_size is not None or options.target_kl is not None:
        raise UsageError("method smoothquant stores weights in 8 bits, and a target mixes bits; leave one of them out")
