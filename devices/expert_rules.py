"""The conditions of each device for mixtures of experts: one node for all experts of a layer, or nodes of their own.

``rules`` has those of the other operators, and says what a source is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ..artifact import FloatPrecision
from .presets import TITLES, DeviceName
from .rules import CUDA, DML, QNN, WEBGPU, Rule, Rules


@dataclass(frozen=True)
class Experts:
    """The facts of a MoE or QMoE; ``raw_weights``: the attribute weights_prepacked is 0."""

    operator: str
    activations: FloatPrecision = "fp32"
    zero_points: bool = False
    router_weights: bool = False
    raw_weights: bool = False

    @property
    def quantized(self) -> bool:
        return self.operator == "QMoE"


@dataclass(frozen=True)
class SeparateExperts:
    """The facts of experts with nodes of their own, which NonZero finds the tokens for; ``count`` over all layers."""

    count: int


def _unknown(device: DeviceName, source: str) -> Rule[Experts]:
    return Rule(
        lambda e: False,
        "host",
        f"{{operator}} computes the experts, which {TITLES[device]} has no kernel for",
        f"export with --for {device}",
        source,
    )


EXPERT_RULES: Mapping[DeviceName, Rules[Experts]] = {
    "cuda": (
        Rule(
            lambda e: not e.quantized or e.activations != "fp32",
            "host",
            "{operator} has kernels for fp16 and bf16 only, and this computes in {activations}",
            "export with --for cuda",
            f"{CUDA}moe/moe_quantization.cc (kernels of MLFloat16 and BFloat16)",
        ),
        Rule(
            lambda e: not e.quantized or e.activations == "fp32" or e.raw_weights,
            "wrong",
            "{operator} takes weights for rearranged where weights_prepacked is not 0, and computes others than these",
            "export with --for cuda",
            f"{CUDA}moe/moe_quantization.cc (weights_prepacked); docs/contrib_ops/cuda/moe_qmoe.md",
        ),
    ),
    "webgpu": (
        Rule(
            lambda e: e.quantized,
            "host",
            "{operator} computes the experts, which WebGPU has no kernel for",
            "export with --for webgpu",
            f"{WEBGPU}webgpu_contrib_kernels.cc",
        ),
        Rule(
            lambda e: not (e.quantized and e.zero_points),
            "fails",
            "{operator} has zero points, which the kernel refuses",
            "export with --for webgpu",
            f"{WEBGPU}moe/qmoe.cc (zero_points for QMoE are not yet supported on WebGPU)",
        ),
        Rule(
            lambda e: not (e.quantized and e.router_weights),
            "fails",
            "{operator} has the input router_weights, which the kernel refuses",
            "export with --for webgpu",
            f"{WEBGPU}moe/qmoe.cc (Separate router_weights is not yet implemented on WebGPU for QMoE)",
        ),
    ),
    "directml": (_unknown("directml", f"{DML}OperatorRegistration.cpp"),),
    "qnn": (_unknown("qnn", f"{QNN}builder/op_builder_factory.cc"),),
    "openvino": (
        Rule(
            lambda e: False,
            "fails",
            "{operator} computes the experts, which OpenVINO does not know",
            "export with --for openvino",
            "run with OpenVINO 2026.4.1: No conversion rule found for operations: com.microsoft.QMoE",
        ),
    ),
}

_READS_BACK = "each of {count} experts waits at each step until the CPU knows the number of its tokens (NonZero)"
_NOTHING = "nothing is to be done in the graph"

SEPARATE_RULES: Mapping[DeviceName, Rules[SeparateExperts]] = {
    "cuda": (
        Rule(
            lambda e: False,
            "slow",
            _READS_BACK,
            _NOTHING,
            "core/providers/cuda/tensor/nonzero_op.cc (cudaMemcpyDeviceToHost)",
        ),
    ),
    "webgpu": (
        Rule(
            lambda e: False,
            "slow",
            "the tokens of each of {count} experts are found on the CPU, with a copy there and back: WebGPU has no "
            "kernel for NonZero",
            _NOTHING,
            "core/providers/webgpu/webgpu_execution_provider.cc (no NonZero)",
        ),
    ),
    "directml": (
        Rule(
            lambda e: False,
            "slow",
            _READS_BACK,
            _NOTHING,
            f"{DML}DmlOperatorNonZero.cpp (Copy the number of nonzero elements back to the CPU)",
        ),
    ),
    "qnn": (
        Rule(
            lambda e: False,
            "slow",
            "the tokens of each of {count} experts are found on the CPU, with a copy there and back: QNN has no "
            "builder for NonZero",
            _NOTHING,
            f"{QNN}builder/op_builder_factory.cc",
        ),
    ),
    "openvino": (),
}
