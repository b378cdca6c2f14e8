"""The conditions of each device's kernels, each with its effect and its source: the one table that presets, ``inspect``
and tests use.

Sources are files of ONNX Runtime (1.30 of August 2026) unless they say otherwise. What was run, and with which
versions, is in docs/runtimes.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Generic, Literal, TypeVar

from ..artifact import FloatPrecision, Precision, Target, Task
from .presets import DeviceName

Effect = Literal["fails", "wrong", "host", "partly", "slow"]
"""The device refuses it; computes something else, without an error; leaves it to the CPU; runs it with some of the
device's packages and not with others; or takes a slower path."""

Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Whole:
    """The facts of an artifact as a whole; ``window`` is the shortest sliding window, in tokens."""

    task: Task
    target: Target
    precision: Precision
    activations: FloatPrecision
    causal: bool = True
    window: int | None = None
    opset: int = 23
    integer: bool = False  # integer multiplications: method smoothquant
    optional_input: bool = False  # logits_to_keep has a default


def shortest_window(layer_windows: Sequence[int | None], context_length: int) -> int | None:
    """Return the shortest sliding window that leaves tokens out, in tokens; None where there is none."""
    return min((window for window in layer_windows if window is not None and window < context_length), default=None)


@dataclass(frozen=True)
class MatMul:
    """The facts of a MatMulNBits: a weight [rows, columns] in blocks."""

    bits: int
    block_size: int
    rows: int
    columns: int
    activations: FloatPrecision = "fp32"
    symmetric: bool = False
    bias: bool = False
    accuracy_level: int = 4
    scales_are_stored: bool = True  # as they are used, without a Cast
    joined: bool = False  # its 8 bits are 5, which a function of the graph joins


@dataclass(frozen=True)
class Attention:
    """The facts of a GroupQueryAttention."""

    packed_qkv: bool
    rotates: bool


@dataclass(frozen=True)
class Lookup:
    """The facts of a GatherBlockQuantized."""

    scales_are_stored: bool


@dataclass(frozen=True)
class Rule(Generic[Subject]):
    """A condition of a device's kernels.

    Args:
        holds: returns true for a subject that the kernels take, and take well.
        reason: why not, in the subject's words; may use its fields.
        remedy: what to do.
        source: where the condition is stated.
    """

    holds: Callable[[Subject], bool]
    effect: Effect
    reason: str
    remedy: str
    source: str

    def says(self, subject: Subject) -> str:
        """Return the reason for a subject that the rule does not hold for."""
        return self.reason.format(**asdict(subject))  # type: ignore[call-overload]


Rules = tuple[Rule[Subject], ...]

CUDA, DML, QNN = "contrib_ops/cuda/", "core/providers/dml/DmlExecutionProvider/src/Operators/", "core/providers/qnn/"
WEBGPU = "contrib_ops/webgpu/"
FP16 = "give --precision fp16, or --activations fp16 with int4 and int8"
FP16_OR_FP32 = "give --precision fp16 or fp32, or --activations fp16 or fp32 with int4 and int8"
NARROWER = "give --block-size 32, or leave it out"

WHOLE_RULES: Mapping[DeviceName, Rules[Whole]] = {
    "cuda": (
        Rule(
            lambda a: not (a.target == "ort" and a.causal and a.activations == "fp32"),
            "host",
            "GroupQueryAttention has kernels for fp16 and bf16 only, and this computes in fp32",
            f"{FP16}; or --target standard",
            f"{CUDA}bert/group_query_attention.cc (kernels of MLFloat16 and BFloat16)",
        ),
        Rule(
            lambda a: not a.integer,
            "host",
            "method smoothquant multiplies by MatMulIntegerToFloat, which CUDA has no kernel for",
            "give another --method",
            "docs/OperatorKernels.md",
        ),
    ),
    "webgpu": (
        Rule(
            lambda a: a.activations != "bf16",
            "fails",
            "there is no bf16",
            FP16_OR_FP32,
            "core/providers/webgpu/webgpu_supported_types.h",
        ),
        Rule(
            lambda a: a.target == "ort",
            "host",
            "target standard computes attention by ONNX's Attention, which WebGPU has no kernel for",
            "give --target ort",
            "core/providers/webgpu/webgpu_execution_provider.cc (no Attention of ONNX)",
        ),
        Rule(
            lambda a: a.causal or a.target == "standard",
            "host",
            "bidirectional attention is ONNX's Attention, which WebGPU has no kernel for",
            "run it on a CPU",
            "core/providers/webgpu/webgpu_execution_provider.cc (no Attention of ONNX)",
        ),
        Rule(
            lambda a: not a.integer,
            "host",
            "method smoothquant multiplies by MatMulIntegerToFloat, which WebGPU has no kernel for",
            "give another --method",
            f"{WEBGPU}webgpu_contrib_kernels.cc",
        ),
        Rule(
            lambda a: a.window is None,
            "slow",
            "texts longer than the window of {window} tokens leave flash attention",
            "keep texts shorter",
            f"{WEBGPU}bert/group_query_attention.cc:387 (use_sliding_window)",
        ),
    ),
    "directml": (
        Rule(
            lambda a: a.activations != "bf16",
            "fails",
            "there is no bf16",
            FP16_OR_FP32,
            f"{DML}OperatorRegistration.cpp (Float16to32)",
        ),
        Rule(
            lambda a: a.target == "ort",
            "host",
            "target standard needs opset 24, and DirectML has kernels up to opset 21: none of Attention, "
            "RMSNormalization and RotaryEmbedding",
            "give --target ort",
            f"{DML}OperatorRegistration.cpp",
        ),
        Rule(
            lambda a: a.causal or a.target == "standard",
            "host",
            "bidirectional attention is ONNX's Attention of opset 23, which DirectML has no kernel for",
            "run it on a CPU",
            f"{DML}OperatorRegistration.cpp",
        ),
        Rule(
            lambda a: a.opset <= 21 or a.target == "standard" or not a.causal,
            "host",
            "the graph has opset {opset}, and Reshape, Cast and others have kernels up to opset 21: a kernel without a "
            "last version serves its own version of an operator alone",
            "export with --for directml",
            "core/framework/kernel_registry.cc (VerifyVersion); docs/OperatorKernels.md",
        ),
        Rule(
            lambda a: a.window is None or a.target == "standard",
            "wrong",
            "GroupQueryAttention does not read local_window_size: texts longer than the window of {window} tokens get "
            "other answers",
            "give --target standard, or run it on another device",
            f"{DML}DmlOperatorGroupQueryAttention.cpp",
        ),
    ),
    "qnn": (
        Rule(
            lambda a: a.activations != "bf16",
            "host",
            "there is no bf16",
            "give --precision fp32 or fp16, or --activations fp32",
            f"{QNN}builder/qnn_utils.cc (GetQnnDataType)",
        ),
        Rule(
            lambda a: not a.integer,
            "host",
            "method smoothquant multiplies by MatMulIntegerToFloat, which QNN has no builder for",
            "give another --method",
            f"{QNN}builder/op_builder_factory.cc",
        ),
        Rule(
            lambda a: False,
            "slow",
            "attention and rotation run on the CPU: QNN has builders for none of GroupQueryAttention, Attention and "
            "RotaryEmbedding",
            "nothing is to be done in the graph",
            f"{QNN}builder/op_builder_factory.cc",
        ),
    ),
    "openvino": (
        Rule(
            lambda a: a.activations != "bf16",
            "fails",
            "the provider takes no bf16",
            "give --precision fp32 or fp16, or --activations fp32",
            "core/providers/openvino/ov_versions/data_ops.cc (populate_types_supported)",
        ),
        Rule(
            lambda a: not a.integer,
            "fails",
            "method smoothquant multiplies by MatMulIntegerToFloat, which OpenVINO does not know",
            "give another --method",
            "core/providers/openvino/ov_versions/data_ops.cc",
        ),
        Rule(
            lambda a: not a.optional_input,
            "partly",
            "onnxruntime-ep-openvino 1.8 refuses an input with a default, which logits_to_keep has; OpenVINO itself "
            "and onnxruntime-openvino take it",
            "export with --for openvino",
            "run with onnxruntime-ep-openvino 1.8.1: Input names mismatch between OpenVINO and ONNX",
        ),
        Rule(
            lambda a: a.target == "ort",
            "partly",
            "onnxruntime-openvino 1.24 refuses ONNX's Attention of target standard; OpenVINO 2026.4 itself runs it",
            "give --target ort",
            "run with both: OpenVINO does not support the following ONNX operations: Attention",
        ),
    ),
}

FIVE_BITS = "weights of 5 bits are those of 8 bits once the graph is loaded, and take more memory and time"


def _five_bits(device: DeviceName) -> Rule[MatMul]:
    return Rule(
        lambda m: not m.joined,
        "slow",
        FIVE_BITS,
        f"export with --for {device}",
        "core/framework/graph_partitioner.cc (InlineFunctionsAOT), core/optimizer/constant_folding.cc",
    )


MATMUL_RULES: Mapping[DeviceName, Rules[MatMul]] = {
    "cuda": (
        _five_bits("cuda"),
        Rule(
            lambda m: m.bits != 4 or m.block_size in (16, 32, 64, 128),
            "fails",
            "blocks of {block_size} with {bits} bits: the kernel for one row takes 16, 32, 64 and 128",
            NARROWER,
            f"{CUDA}quantization/matmul_4bits_m1_impl.cuh (MATMUL_FLOAT4B_M1_DISPATCH)",
        ),
        Rule(
            lambda m: m.rows % 8 == 0 and m.columns % 8 == 0,
            "slow",
            "a weight of {rows} x {columns} is dequantized whole at each step: rows and columns must be multiples of 8",
            "nothing is to be done in the graph",
            f"{CUDA}quantization/matmul_4bits.cu (TryMatMul4Bits), matmul_8bits.cu",
        ),
        Rule(
            lambda m: m.bits != 8 or m.columns % m.block_size == 0,
            "slow",
            "8 bits in blocks of {block_size} over {columns} columns are dequantized whole at each step: blocks must "
            "divide the columns",
            NARROWER,
            f"{CUDA}quantization/matmul_8bits.cu (TryMatMul8Bits)",
        ),
    ),
    "webgpu": (
        _five_bits("webgpu"),
        Rule(
            lambda m: m.block_size % 32 == 0,
            "slow",
            "blocks of {block_size} take the slowest kernel: multiples of 32 have faster ones",
            NARROWER,
            f"{WEBGPU}quantization/dp4a_matmul_nbits.cc (CanApplyDP4AMatrixMatMulNBits)",
        ),
        Rule(
            lambda m: m.block_size == 32 or m.block_size % 32 > 0,
            "slow",
            "blocks of {block_size} take a slower kernel for prompts: the wide tile is for blocks of 32",
            NARROWER,
            f"{WEBGPU}quantization/matmul_nbits_common.cc (CanApplyWideTileMatMulNBits)",
        ),
        Rule(
            lambda m: m.accuracy_level == 4,
            "slow",
            "accuracy_level {accuracy_level} takes no integer products (DP4A)",
            "export with --for webgpu",
            f"{WEBGPU}quantization/dp4a_matmul_nbits.cc (CanApplyDP4AMatrixMatMulNBits)",
        ),
        Rule(
            lambda m: m.columns % 128 == 0 and m.rows % 16 == 0,
            "slow",
            "a weight of {rows} x {columns} takes no integer products (DP4A): columns must be multiples of 128, rows "
            "of 16",
            "nothing is to be done in the graph",
            f"{WEBGPU}quantization/dp4a_matmul_nbits.cc (CanApplyDP4AMatrixMatMulNBits)",
        ),
    ),
    "directml": (
        _five_bits("directml"),
        Rule(
            lambda m: not m.bias,
            "fails",
            "MatMulNBits has a bias, which the kernel refuses when the model is loaded",
            "export with --for directml",
            f"{DML}DmlOperatorMatMulNBits.cpp (IsInputValid(5))",
        ),
        Rule(
            lambda m: m.columns % m.block_size == 0,
            "host",
            "blocks of {block_size} do not divide the {columns} columns of a weight",
            NARROWER,
            f"{DML}DmlOperatorMatMulNBits.cpp (QueryMatMulNBits)",
        ),
    ),
    "qnn": (
        _five_bits("qnn"),
        Rule(
            lambda m: m.bits == 4,
            "host",
            "weights of {bits} bits: QNN multiplies by 4 bits only",
            "give --precision int4, and no --keep with int8",
            f"{QNN}builder/opbuilder/matmulnbits_op_builder.cc (IsOpSupported)",
        ),
        Rule(
            lambda m: m.block_size == 32,
            "host",
            "blocks of {block_size}: QNN takes 32",
            NARROWER,
            f"{QNN}builder/opbuilder/matmulnbits_op_builder.cc (IsOpSupported)",
        ),
        Rule(
            lambda m: m.columns % 32 == 0 and m.rows * m.columns % 64 == 0,
            "host",
            "a weight of {rows} x {columns}: QNN takes columns that are multiples of 32",
            "keep it in float with --keep",
            f"{QNN}builder/opbuilder/matmulnbits_op_builder.cc (IsOpSupported)",
        ),
        Rule(
            lambda m: m.activations == "fp32",
            "host",
            "MatMulNBits computes in {activations}: QNN takes fp32",
            "give --activations fp32",
            f"{QNN}builder/opbuilder/matmulnbits_op_builder.cc (IsOpSupported)",
        ),
        Rule(
            lambda m: m.symmetric,
            "host",
            "weights have zero points: QNN takes none but 8",
            "export with --for qnn",
            f"{QNN}builder/opbuilder/matmulnbits_op_builder.cc (expected_offset_value)",
        ),
        Rule(
            lambda m: not m.bias,
            "host",
            "MatMulNBits has a bias, which QNN refuses",
            "export with --for qnn",
            f"{QNN}builder/opbuilder/matmulnbits_op_builder.cc (IsOpSupported)",
        ),
    ),
    "openvino": (_five_bits("openvino"),),
}

ATTENTION_RULES: Mapping[DeviceName, Rules[Attention]] = {
    "cuda": (),
    "webgpu": (),
    "directml": (
        Rule(
            lambda a: not a.packed_qkv,
            "fails",
            "GroupQueryAttention takes q, k and v as one input, and the kernel wants three",
            "export with --for directml",
            f"{DML}DmlOperatorGroupQueryAttention.cpp (GetDimensionCount() == 3); onnxruntime-genai, "
            "models/builders/base.py (use_packed_matmul)",
        ),
        Rule(
            lambda a: not a.rotates,
            "wrong",
            "GroupQueryAttention rotates queries and keys (do_rotary), and the kernel does not",
            "export with --for directml",
            f"{DML}DmlOperatorGroupQueryAttention.cpp; onnxruntime-genai, models/builders/base.py "
            "(is_fused_rope_supported)",
        ),
    ),
    "qnn": (),
    "openvino": (),
}

LOOKUP_RULES: Mapping[DeviceName, Rules[Lookup]] = {
    "cuda": (),
    "webgpu": (),
    "directml": (),
    "qnn": (),
    "openvino": (
        Rule(
            lambda g: g.scales_are_stored,
            "partly",
            "OpenVINO itself refuses GatherBlockQuantized whose scales go through a Cast; ONNX Runtime's providers "
            "fold it",
            "export with --for openvino",
            "run with OpenVINO 2026.4.1: GatherBlockQuantized: 'scales' must be a constant",
        ),
    ),
}
