"""The rows of quantization.md: ours, each a set of options of ``intaglio.exporter.quantize``, and the peers'.

To measure another variant, add a row here.
"""

from dataclasses import dataclass, field
from typing import Any

REFERENCE = "fp32"
BASELINE = "genai-int4-rtn-b32"  # what speeds are compared with


@dataclass(frozen=True)
class Row:
    """``name`` is the folder's and what ``--only`` takes; ``method``, ``bits`` and ``block`` are the table's words.

    Ours have ``options``: the keyword arguments of ``quantize``, or of ``export`` for an unquantized artifact. Peers
    have a ``command`` for their own interpreter; {source}, {gguf} (the same weights unquantized in a GGUF
    file), {out} and {here} (this folder) are filled in, and ``out`` is the file or folder that it makes.
    """

    name: str
    method: str
    bits: str
    block: str
    tool: str = "intaglio"
    options: dict[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    out: str = "{name}"


def _genai(name: str, method: str, bits: str, block: str, *arguments: str) -> Row:
    command = ("-m", "onnxruntime_genai.models.builder", "-m", "{source}", "-i", "{source}", "-o", "{out}", "-e", "cpu")
    return Row(name, method, bits, block, "onnxruntime-genai", command=(*command, *arguments))


def _llama(kind: str, bits: str, block: str) -> Row:
    name = f"llama-{kind.lower().replace('_', '-')}"
    command = ("{here}/llama_quantize.py", "{gguf}", "{out}", kind)
    return Row(name, kind, bits, block, "llama.cpp", command=command, out="{name}.gguf")


def _openvino(name: str, method: str, bits: str, block: str, weights: str) -> Row:
    tool = ("-m", "optimum.commands.optimum_cli", "export", "openvino", "--model", "{source}")
    command = (*tool, "--task", "text-generation-with-past", "--weight-format", weights, "{out}")
    return Row(name, method, bits, block, "OpenVINO", command=command)


OWN = (
    Row(REFERENCE, "none", "32", "", options={"precision": "fp32"}),
    Row("int4", "auto: GPTQ, mixed", "4 and 8", "16 to 128", options={"precision": "int4"}),
    Row("int4-rtn-b32", "RTN", "4", "32", options={"precision": "int4", "method": "rtn"}),
    Row("int4-rtn-b128", "RTN", "4", "128", options={"precision": "int4", "method": "rtn", "block_size": 128}),
    Row("int4-awq-b32", "AWQ", "4", "32", options={"precision": "int4", "method": "awq", "block_size": 32}),
    Row("int4-gptq-b32", "GPTQ", "4", "32", options={"precision": "int4", "method": "gptq", "windows": 128}),
    Row("int4-gptq-b64", "GPTQ", "4", "64", options={"precision": "int4", "method": "gptq", "block_size": 64}),
    Row("int4-gptq-b128", "GPTQ", "4", "128", options={"precision": "int4", "method": "gptq", "block_size": 128}),
    Row("int8", "auto: RTN", "8", "16 and 32", options={"precision": "int8"}),
    Row(
        "int8-smoothquant",
        "smoothquant",
        "8",
        "32, row",
        options={"precision": "int8", "method": "smoothquant", "windows": 32},
    ),
)

PEERS = (
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
