"""The variants of a checkpoint that are measured: intaglio's, each a set of export options, and the peers'.

To measure another variant, add it here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

REFERENCE = "fp32"
BASELINE = "genai-int4-rtn-b32"  # quantization.md compares decode speeds with it


@dataclass(frozen=True)
class Variant:
    """A model made from the checkpoint by one tool.

    ``name`` is the artifact's name and what the command line takes; ``method``, ``bits`` and ``block`` are cells of
    quantization.md. intaglio's variants have ``options``: the precision and the fields of ``QuantizeOptions``. Peers'
    variants have a ``command`` for their own interpreter, in which {source} (the checkpoint), {gguf} (the unquantized
    GGUF file) and {out} are filled in; ``out`` is the name of the file or folder that it writes.

    A variant may run the ``artifact`` of another one. ``instructions`` names the newest vector instructions that it may
    use, where they are limited: by how its tool was built, or by ``variables`` of the process that is measured.
    """

    name: str
    method: str
    bits: str
    block: str
    tool: str = "intaglio"
    options: dict[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    out: str = "{name}"
    artifact: str = ""
    instructions: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)


def _genai(name: str, method: str, bits: str, block: str, *arguments: str) -> Variant:
    command = ("-m", "onnxruntime_genai.models.builder", "-m", "{source}", "-i", "{source}", "-o", "{out}", "-e", "cpu")
    return Variant(name, method, bits, block, "onnxruntime-genai", command=(*command, *arguments))


def _llama(kind: str, bits: str, block: str) -> Variant:
    name = f"llama-{kind.lower().replace('_', '-')}"
    command = ("-m", f"{__package__}.llama_quantize", "{gguf}", "{out}", kind)
    return Variant(name, kind, bits, block, "llama.cpp", command=command, out="{name}.gguf")


def _limited(variant: Variant, tool: str = "", **variables: str) -> Variant:
    """Return a variant that runs another's artifact with AVX2 at most."""
    return Variant(
        f"{variant.name}-avx2",
        variant.method,
        variant.bits,
        variant.block,
        tool or variant.tool,
        artifact=variant.artifact or variant.name,
        instructions="AVX2",
        variables=variables,
    )


def _openvino(name: str, method: str, bits: str, block: str, weights: str) -> Variant:
    tool = ("-m", "optimum.commands.optimum_cli", "export", "openvino", "--model", "{source}")
    command = (*tool, "--task", "text-generation-with-past", "--weight-format", weights, "{out}")
    return Variant(name, method, bits, block, "OpenVINO", command=command)


OWN = (
    Variant(REFERENCE, "none", "32", "", options={"precision": "fp32"}),
    Variant("int4", "auto: GPTQ, mixed", "4, 5 and 8", "16 to 128", options={"precision": "int4"}),
    Variant("int4-rtn-b32", "RTN", "4", "32", options={"precision": "int4", "method": "rtn"}),
    Variant("int4-rtn-b128", "RTN", "4", "128", options={"precision": "int4", "method": "rtn", "block_size": 128}),
    Variant("int4-awq-b32", "AWQ", "4", "32", options={"precision": "int4", "method": "awq", "block_size": 32}),
    Variant("int4-gptq-b32", "GPTQ", "4", "32", options={"precision": "int4", "method": "gptq", "windows": 128}),
    Variant("int4-gptq-b64", "GPTQ", "4", "64", options={"precision": "int4", "method": "gptq", "block_size": 64}),
    Variant("int4-gptq-b128", "GPTQ", "4", "128", options={"precision": "int4", "method": "gptq", "block_size": 128}),
    Variant("int8", "auto: RTN", "8", "16 and 32", options={"precision": "int8"}),
    Variant(
        "int8-smoothquant",
        "smoothquant",
        "8",
        "32, row",
        options={"precision": "int8", "method": "smoothquant", "windows": 32},
    ),
)

QUANTIZED_PEERS = (
    _genai(BASELINE, "RTN, its default", "4", "32", "-p", "int4"),
    _genai("genai-int4-rtn-b128", "RTN", "4", "128", "-p", "int4", "--extra_options", "block_size=128"),
    _genai(
        *("genai-int4-k-quant-mixed", "k_quant_mixed", "4 and 8", "32", "-p", "int4"),
        *("--extra_options", "algo_config=k_quant_mixed"),
    ),
    _genai("genai-int8", "RTN", "8", "32", "-p", "int8"),
    _llama("Q4_0", "4, 8 head", "32"),
    _llama("Q4_K_M", "4 to 8", "32 to 256"),
    _llama("Q8_0", "8", "32"),
    _openvino("openvino-int4", "NNCF int4_asym", "4, 8 head", "128", "int4"),
    _openvino("openvino-int8", "NNCF int8_asym", "8", "row", "int8"),
)
CT2 = Variant(
    "ctranslate2-int8",
    "int8",
    "8",
    "row",
    "CTranslate2",
    command=(
        *("-m", "ctranslate2.converters.transformers", "--model", "{source}"),
        *("--output_dir", "{out}", "--quantization", "int8", "--force"),
    ),
)
TRANSFORMERS = Variant("transformers-fp32", "none", "32", "", "transformers")
_NAMED = {variant.name: variant for variant in (*OWN, *QUANTIZED_PEERS)}
IK_LLAMA = Variant("ik-llama-q4-0", "Q4_0", "4, 8 head", "32", "ik_llama.cpp", artifact="llama-q4-0")
LIMITED = (
    _limited(_NAMED["int4"], INTAGLIO_KERNELS="avx2"),
    _limited(IK_LLAMA, "ik_llama.cpp-avx2"),
    _limited(_NAMED["llama-q4-0"], "llama.cpp-avx2"),
    _limited(_NAMED["openvino-int4"], ONEDNN_MAX_CPU_ISA="AVX2"),
)
"""What can be limited. ONNX Runtime's kernels, and so onnxruntime-genai, choose instructions by the processor alone."""
ALL = _NAMED | {variant.name: variant for variant in (IK_LLAMA, CT2, TRANSFORMERS, *LIMITED)}

INT4 = "int4"  # intaglio's default; runtime.md compares it with each other variant
INT4_AVX2 = LIMITED[0].name
DEFAULT = (
    *(INT4, "int8", REFERENCE, BASELINE, "openvino-int4", "llama-q4-0", IK_LLAMA.name, CT2.name, TRANSFORMERS.name),
    *(variant.name for variant in LIMITED),
)
BATCHED = (INT4, BASELINE, "openvino-int4", CT2.name)
