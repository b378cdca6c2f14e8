"""The form of graph and weights that each device's kernels want; ``rules`` has the conditions and their sources."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from ..artifact import FloatPrecision

DeviceName = Literal["cuda", "webgpu", "directml", "qnn", "openvino"]
DEVICES: tuple[DeviceName, ...] = get_args(DeviceName)
TITLES: Mapping[DeviceName, str] = {
    "cuda": "CUDA",
    "webgpu": "WebGPU",
    "directml": "DirectML",
    "qnn": "QNN",
    "openvino": "OpenVINO",
}
"""The devices' names in messages."""


@dataclass(frozen=True)
class GraphForm:
    """Where the graph of a device differs from the usual one; all but the last are of target ``ort`` alone.

    Args:
        opset: the version of ONNX's operators; None for the newest that the target needs.
        norm: the operator of RMS norms.
        fused_norms: a norm and the sum in front of it are one SkipSimplifiedLayerNormalization.
        packed_qkv: q, k and v are one multiplication where they can be.
        rotates_inside: GroupQueryAttention rotates queries and keys; else com.microsoft's RotaryEmbedding does.
        folded_bias: a quantized multiplication adds its bias; else an Add does.
        half_scales: scales are stored in float16 and widened when the graph is loaded; else stored as they are used.
        optional_logits_to_keep: the input ``logits_to_keep`` has a default.
        fused_experts: the experts of a layer are one MoE or QMoE, whose forms here are those of the CPU's kernels
            (``expert_rules`` says what other devices make of them).
    """

    opset: int | None = None
    norm: Literal["SimplifiedLayerNormalization", "RMSNormalization"] = "SimplifiedLayerNormalization"
    fused_norms: bool = True
    packed_qkv: bool = True
    rotates_inside: bool = True
    folded_bias: bool = True
    half_scales: bool = True
    optional_logits_to_keep: bool = True
    fused_experts: bool = True


USUAL = GraphForm()
"""The form of a graph that is made for no device in particular."""


@dataclass(frozen=True)
class Preset:
    """What is chosen for a device where the caller leaves it open.

    Args:
        activations: the precision that quantized graphs compute in.
        symmetric: weights in blocks have no zero points.
        accuracy_level: MatMulNBits' attribute; None leaves it to the calibration.
    """

    activations: FloatPrecision = "fp32"
    symmetric: bool = False
    accuracy_level: int | None = None
    form: GraphForm = USUAL


PRESETS: Mapping[DeviceName, Preset] = {
    "cuda": Preset(activations="fp16", form=GraphForm(folded_bias=False, fused_experts=False)),
    "webgpu": Preset(activations="fp16", accuracy_level=4, form=GraphForm(fused_experts=False)),
    "directml": Preset(
        activations="fp16",
        form=GraphForm(opset=21, packed_qkv=False, rotates_inside=False, folded_bias=False, fused_experts=False),
    ),
    "qnn": Preset(
        symmetric=True,
        form=GraphForm(
            norm="RMSNormalization", fused_norms=False, folded_bias=False, half_scales=False, fused_experts=False
        ),
    ),
    "openvino": Preset(form=GraphForm(half_scales=False, optional_logits_to_keep=False, fused_experts=False)),
}


def form_for(device: DeviceName | None) -> GraphForm:
    """Return the form of a device's graph, or the usual one."""
    return USUAL if device is None else PRESETS[device].form
