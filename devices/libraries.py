"""The libraries on top of ONNX Runtime: which artifacts each runs, and with which setting.

``intaglio inspect`` and the model card say what this table says; docs/runtimes.md has what was run.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ..artifact import CacheDtype, Manifest, Precision, Task
from ..contract import JOIN_BITS
from .rules import FIVE_BITS

Library = Literal["onnxruntime-genai", "optimum", "transformers.js"]
GENAI: Library = "onnxruntime-genai"
OPTIMUM: Library = "optimum"
TRANSFORMERS_JS: Library = "transformers.js"
LIBRARIES: tuple[Library, ...] = (GENAI, OPTIMUM, TRANSFORMERS_JS)

GENAI_CONFIG = "genai_config.json"
"""The file that onnxruntime-genai opens a folder by; an artifact has it where the library can run it."""

JS_DTYPES: Mapping[tuple[Precision, CacheDtype], str] = {
    ("fp32", "float32"): "fp32",
    ("fp16", "float16"): "fp16",
    ("int8", "float32"): "q8",
    ("int4", "float32"): "q4",
    ("int4", "float16"): "q4f16",
}
"""The names that transformers.js has for precisions, by those of weights and cache; it has no others."""

JS_MODEL_TYPES: Mapping[tuple[str, Task], str] = {
    ("exaone4", "text-generation"): "qwen2",
    **{
        (family, task): "bert"
        for family in ("qwen2", "exaone4", "qwen2_moe")
        for task in ("text-classification", "token-classification", "question-answering")
    },
}
"""The model type by which transformers.js 4.3 runs what its registry has no class for: one whose inputs and outputs are
the same (src/models/registry.js)."""

REGISTERED_FOR_OPTIMUM: tuple[tuple[str, Task], ...] = (("exaone4", "text-generation"),)
"""The families and tasks that optimum knows once ``intaglio.interop.optimum`` is imported."""

Effect = Literal["fails", "slow", "setting"]


@dataclass(frozen=True)
class Obstacle:
    """What keeps a library from running an artifact as it is.

    Args:
        effect: the library fails, is slow, or needs the setting that is the remedy.
        source: where that is stated.
    """

    effect: Effect
    what: str
    remedy: str
    source: str


def obstacles(library: Library, manifest: Manifest, *, optional_input: bool | None = None) -> list[Obstacle]:
    """Return what keeps a library from running an artifact; [] where it runs as it is.

    Args:
        optional_input: the graph has a default for ``logits_to_keep``; None to conclude it from the files.
    """
    return [*_general(manifest, optional_input), *_OWN[library](manifest)]


def runs(library: Library, manifest: Manifest) -> bool:
    """Return true where a library runs an artifact, with a setting or without."""
    return all(one.effect != "fails" for one in obstacles(library, manifest))


def _general(manifest: Manifest, optional_input: bool | None) -> Iterator[Obstacle]:
    """Yield what concerns every library: none gives ``logits_to_keep``, and all look for files of format 3."""
    if manifest.format_version < 3:
        yield Obstacle("fails", "the artifact has format 2", "export the model again", "docs/artifact-format.md")
    optional = GENAI_CONFIG in manifest.files if optional_input is None else optional_input
    if manifest.task == "text-generation" and not optional:
        what = "it does not give the input logits_to_keep"
        yield Obstacle("fails", what, "export without --for openvino", "docs/export.md")
    if manifest.model.cache_dtype == "bfloat16":
        yield Obstacle("slow", "bf16 runs on CUDA alone", "export to fp32 for a CPU", "docs/OperatorKernels.md")
    if f"{JOIN_BITS[0]}::{JOIN_BITS[1]}" in manifest.operators:
        yield Obstacle("slow", FIVE_BITS, "quantize with --bits 4,8", "docs/artifact-format.md")


def _genai(manifest: Manifest) -> Iterator[Obstacle]:
    if manifest.task != "text-generation":
        yield Obstacle("fails", "it generates text only", "use ONNX Runtime, or optimum", "docs/runtimes.md")


def _optimum(manifest: Manifest) -> Iterator[Obstacle]:
    if (manifest.family, manifest.task) in REGISTERED_FOR_OPTIMUM:
        what = f"it does not know {manifest.family} by itself"
        yield Obstacle("setting", what, "import intaglio.interop.optimum first", "docs/runtimes.md")


def _transformers_js(manifest: Manifest) -> Iterator[Obstacle]:
    if (manifest.precision, manifest.model.cache_dtype) not in JS_DTYPES:
        what = f"it has no name for {manifest.precision} with a cache of {manifest.model.cache_dtype}"
        yield Obstacle("fails", what, "use onnxruntime-web, or -node", "transformers.js 4.3, src/utils/dtypes.js")
    model_type = JS_MODEL_TYPES.get((manifest.family, manifest.task))
    if model_type is not None:
        what = f"it has no class for {manifest.task} of {manifest.family}"
        remedy = f'set config.model_type = "{model_type}"'
        if manifest.task == "question-answering":
            remedy += ", and use AutoModelForQuestionAnswering instead of the pipeline"
        yield Obstacle("setting", what, remedy, "docs/runtimes.md")


_OWN = {GENAI: _genai, OPTIMUM: _optimum, TRANSFORMERS_JS: _transformers_js}
