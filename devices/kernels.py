"""The operators that devices have no kernels for, of those that the exporter writes.

Such a node runs on the CPU, and its inputs and outputs are copied there and back. Sources, of ONNX Runtime:
docs/OperatorKernels.md for CUDA and DirectML, core/providers/webgpu and contrib_ops/webgpu,
core/providers/qnn/builder/op_builder_factory.cc. OpenVINO compiles whole graphs, and 2026.4 knows every operator here
but MatMulIntegerToFloat, MoE and QMoE.
"""

from collections.abc import Mapping

from .presets import DeviceName

MS = "com.microsoft::"
INTEGERS = frozenset({"int32", "int64", "uint8", "int8", "uint4", "int4"})

_BITS = frozenset({"BitShift", "BitwiseAnd", "BitwiseXor"})
_INTEGER_PRODUCTS = frozenset({f"{MS}MatMulIntegerToFloat"})
_ONNX_ATTENTION = frozenset({"Attention", "RotaryEmbedding"})
_EXPERTS = frozenset({f"{MS}MoE", f"{MS}QMoE"})

WITHOUT_KERNEL: Mapping[DeviceName, frozenset[str]] = {
    "cuda": _BITS | _INTEGER_PRODUCTS,
    "webgpu": _BITS | _INTEGER_PRODUCTS | {"Attention", "NonZero", "Or", f"{MS}MoE"},
    "directml": _ONNX_ATTENTION | _EXPERTS | {f"{MS}GatherBlockQuantized", "RMSNormalization"},
    "qnn": _ONNX_ATTENTION
    | _BITS
    | _INTEGER_PRODUCTS
    | _EXPERTS
    | {
        f"{MS}GatherBlockQuantized",
        f"{MS}GroupQueryAttention",
        f"{MS}RotaryEmbedding",
        f"{MS}SkipSimplifiedLayerNormalization",
        "NonZero",
        "SimplifiedLayerNormalization",
        "Range",
        "Shape",
    },
    "openvino": _INTEGER_PRODUCTS | _EXPERTS,
}
"""Operators without a kernel for any type."""

WITHOUT_INTEGER_KERNEL: Mapping[DeviceName, frozenset[str]] = {
    "cuda": frozenset({"ArgMax"}),
    "webgpu": frozenset(
        "Abs Add ArgMax Clip CumSum Div Equal Less LessOrEqual Max Mul Neg Range ReduceSum Sub".split()
    ),
    "directml": frozenset(),
    "qnn": frozenset(),
    "openvino": frozenset(),
}
"""Operators whose kernels do not take int64. (WebGPU has some behind its option ``enableInt64``.)"""

NEWEST_OPSET: Mapping[DeviceName, int | None] = {
    "cuda": None,
    "webgpu": None,
    "directml": 21,
    "qnn": None,
    "openvino": None,
}
"""The last version of ONNX's operators that the kernels have followed."""

CHANGED_AFTER_21 = frozenset(
    "Cast ConstantOfShape Cos DequantizeLinear Flatten Identity Pad QuantizeLinear Reshape Shape Sin Squeeze Transpose "
    "Unsqueeze".split()
)
"""Operators with a newer version in opset 22 to 24."""

CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
"""Operators with graphs inside, which a CUDA graph cannot capture."""


def has_kernel(device: DeviceName, operator: str, element: str | None, opset: int) -> bool:
    """Return true if a device has a kernel for an operator.

    Args:
        operator: its type; with its domain in front where that is not ONNX's.
        element: the element type of its first input; None where it is not known.
        opset: the version of ONNX's operators that the graph names.
    """
    if operator in WITHOUT_KERNEL[device]:
        return False
    if element in INTEGERS and operator in WITHOUT_INTEGER_KERNEL[device]:
        return False
    newest = NEWEST_OPSET[device]
    return newest is None or opset <= newest or operator not in CHANGED_AFTER_21
