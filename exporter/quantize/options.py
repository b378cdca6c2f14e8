"""The options of a quantization; the defaults follow measurements (benchmarks/quantization.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from ...artifact import FloatPrecision, Target
from ...devices.presets import PRESETS, DeviceName
from ...errors import UsageError
from ...known_options import with_known_options
from .formats.blocks import BITS, BLOCK_SIZES, ONNX_RUNTIME_BITS
from .texts.names import Text, named_texts

Method = Literal["auto", "rtn", "gptq", "awq", "smoothquant"]
Kept = Literal["float", "int8", "int4"]
AccuracyLevel = Literal[0, 4]
QuantizedPrecision = Literal["int8", "int4"]
METHODS: tuple[Method, ...] = get_args(Method)
KEPT: tuple[Kept, ...] = get_args(Kept)
ACCURACY_LEVELS: tuple[AccuracyLevel, ...] = get_args(AccuracyLevel)
QUANTIZED: tuple[QuantizedPrecision, ...] = get_args(QuantizedPrecision)


@with_known_options
@dataclass(frozen=True)
class QuantizeOptions:
    """The options of a quantization.

    Args:
        method: "rtn" rounds to the nearest and needs no text; "gptq" compensates each column's rounding error in the
            columns after it, on calibration text; "awq" folds scales into what feeds a projection before it rounds;
            "smoothquant", for int8, multiplies gate, up and o with int8 activations, a scale for each token, which
            makes prefill faster; "auto" is gptq with mixed bits for int4 and rtn for int8.
        block_size: columns that share a scale: 16, 32, 64, 128 or 256. None leaves it to the mix; without a mix it is
            32, or 16 for the int8 weights that gain most from it.
        calibration: one text or several, which get equal shares of the windows: files, "default" for the text that
            comes with intaglio, "self" for text that the model generates itself. A ``.jsonl`` file holds chats, which
            the checkpoint's template renders, or texts. None is "default".
        windows: the number of windows of 512 tokens to read from all of them.
        bits: the numbers of bits that a mix may choose from, 4 with 5, 8 or both, and that codes of a quantized
            checkpoint may keep. None takes all where intaglio's kernels run the graph, and 4 and 8 where only ONNX
            Runtime's do, which have no 5.
        keep: patterns of module paths (``*.down_proj``, ``lm_head``) and the precision of those weights, which
            overrides the mix; the last pattern that matches counts.
        target_size: bytes of the weights' file that the mix may spend; None with ``target_kl`` None spends 4.9 bits
            per weight for int4, beside what is kept, and does not mix for int8.
        target_kl: the estimated mean Kullback-Leibler divergence, in nats per token, that the mix must reach.
        activations: the precision that the graph computes in; fp16 and bf16 are for GPUs. None is the device's that the
            artifact is made for, or fp32.
        accuracy_level: the attribute of MatMulNBits, for target ort: 4 multiplies weights by int8 activations, which is
            faster, 0 by float ones, which is more accurate. None is the device's, or 4 but where calibration favours 0.
        resume: keep the finished layers when interrupted, and continue from those of an earlier run.
    """

    method: Method = "auto"
    block_size: int | None = None
    calibration: Text | Sequence[Text] | None = None
    windows: int | None = None
    bits: Sequence[int] | None = None
    keep: Mapping[str, Kept] = field(default_factory=dict)
    target_size: int | None = None
    target_kl: float | None = None
    activations: FloatPrecision | None = None
    accuracy_level: AccuracyLevel | None = None
    resume: bool = False

    @property
    def texts(self) -> tuple[Text, ...]:
        """The calibration texts that are given."""
        return named_texts(self.calibration)

    def computes_in(self, device: DeviceName | None = None) -> FloatPrecision:
        """Return the precision of the activations, for a device or for none in particular."""
        return self.activations or (PRESETS[device].activations if device is not None else "fp32")

    def kernels_bits(self, target: Target, device: DeviceName | None) -> tuple[int, ...]:
        """Return the numbers of bits that the kernels have which a graph is made for: 5 are intaglio's alone."""
        runs_on_intaglio = device is None and target == "ort" and self.accuracy_level != 0
        return BITS if runs_on_intaglio and self.computes_in(device) == "fp32" else ONNX_RUNTIME_BITS

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: a value is not one of those above.
        """
        if self.method not in METHODS:
            raise UsageError(f"method is {self.method!r}; choose one of {', '.join(METHODS)}")
        if self.block_size is not None and self.block_size not in BLOCK_SIZES:
            sizes = ", ".join(map(str, BLOCK_SIZES))
            raise UsageError(
                f"block size {self.block_size} is not one that ONNX Runtime's kernels take; choose one of {sizes}"
            )
        if self.bits is not None and (not set(self.bits) <= set(BITS) or BITS[0] not in self.bits):
            raise UsageError(
                f"bits are {', '.join(map(str, self.bits))}; choose from {', '.join(map(str, BITS))}, with 4 among them"
            )
        if self.accuracy_level not in (None, *ACCURACY_LEVELS):
            raise UsageError(
                f"accuracy level is {self.accuracy_level}; choose 4, for int8 activations, or 0, for float ones"
            )
        for pattern, kept in self.keep.items():
            if kept not in KEPT:
                raise UsageError(
                    f"--keep {pattern}={kept}: {kept!r} is not a precision; choose one of {', '.join(KEPT)}"
                )
        if self.target_size is not None and self.target_kl is not None:
            raise UsageError("target size and target KL are both given; the mix can aim at one: leave the other out")
        if self.target_kl is not None and not self.target_kl > 0:
            raise UsageError(f"target KL is {self.target_kl}; it is a number of nats per token above 0, such as 0.05")
        if self.windows is not None and self.windows < 1:
            raise UsageError(f"{self.windows} windows of calibration text; give at least 1")
