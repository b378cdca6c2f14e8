"""The snippets of the model card: for each runtime that can run an artifact, a few lines that were run.

Each is a template in ``snippet_templates/``. The tests run what the templates give.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jinja2 import Environment, StrictUndefined

from ..artifact import Manifest, Precision, Task
from ..devices.libraries import (
    GENAI,
    JS_DTYPES,
    JS_MODEL_TYPES,
    OPTIMUM,
    REGISTERED_FOR_OPTIMUM,
    TRANSFORMERS_JS,
    runs,
)

Runtime = Literal["intaglio", "onnxruntime-genai", "transformers.js", "optimum", "onnxruntime"]
INSTALL: dict[Runtime, str] = {
    "intaglio": "pip install 'intaglio[cpu]'",
    "onnxruntime-genai": "pip install onnxruntime-genai huggingface_hub",
    "transformers.js": "npm install @huggingface/transformers",
    "optimum": "pip install 'optimum-onnx[onnxruntime]'",
    "onnxruntime": "pip install onnxruntime huggingface_hub tokenizers",
}
REGISTRATION_INSTALL = "pip install 'intaglio[optimum,cpu]'"
"""For optimum where it needs intaglio's registration of a family."""

TITLES: dict[Runtime, str] = {
    "intaglio": "intaglio",
    "onnxruntime-genai": "ONNX Runtime GenAI",
    "transformers.js": "Transformers.js",
    "optimum": "Optimum",
    "onnxruntime": "ONNX Runtime",
}
ORT_CLASSES: dict[Task, str] = {
    "text-generation": "ORTModelForCausalLM",
    "feature-extraction": "ORTModelForFeatureExtraction",
    "text-classification": "ORTModelForSequenceClassification",
    "token-classification": "ORTModelForTokenClassification",
    "question-answering": "ORTModelForQuestionAnswering",
}
Chat = Literal["settings", "file"] | None
"""Where a chat template is: in tokenizer_config.json, or in a file of its own, which Transformers.js does not read."""


@dataclass(frozen=True)
class Snippet:
    """A runtime's name, the command that installs it, the language and the lines."""

    runtime: Runtime
    title: str
    install: str
    language: Literal["python", "js"]
    code: str


def snippets(manifest: Manifest, repository: str, default: Precision, *, chat: Chat) -> list[Snippet]:
    """Return the snippets for an artifact in a repository.

    Args:
        manifest: of the artifact.
        repository: its hub id.
        default: the precision that is loaded where none is asked for.
        chat: where the artifact's chat template is.
    """
    return [_snippet(runtime, manifest, repository, default, chat) for runtime in runtimes(manifest, default)]


def runtimes(manifest: Manifest, default: Precision) -> list[Runtime]:
    """Return the runtimes that run an artifact in a repository with this default.

    ONNX Runtime GenAI reads the settings of the default alone. To answer questions, the pipeline of Transformers.js
    asks for a separator token, which the tokenizers of these families do not have.
    """
    found: list[Runtime] = ["intaglio"]
    if manifest.precision == default and runs(GENAI, manifest):
        found.append("onnxruntime-genai")
    if manifest.task != "question-answering" and runs(TRANSFORMERS_JS, manifest):
        found.append("transformers.js")
    if runs(OPTIMUM, manifest):
        found.append("optimum")
    if manifest.model.cache_dtype != "bfloat16":  # which numpy does not have
        found.append("onnxruntime")
    return found


def _snippet(runtime: Runtime, manifest: Manifest, repository: str, default: Precision, chat: Chat) -> Snippet:
    script = runtime == "transformers.js"
    name = f"{runtime}.{'mjs' if script else 'py'}.jinja"
    text = (Path(__file__).parent / "snippet_templates" / name).read_text(encoding="utf-8")
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    kind = (manifest.family, manifest.task)
    registration = kind in REGISTERED_FOR_OPTIMUM
    code = environment.from_string(text).render(
        task=manifest.task,
        repository=repository,
        choice="" if manifest.precision == default else f', precision="{manifest.precision}"',
        chat=chat == "settings" or (chat == "file" and not script),
        registration=registration,
        patterns=json.dumps(["*.json", "*.jinja", f"{manifest.graph}*"]),
        graph=manifest.graph,
        file_name=manifest.graph.rpartition("/")[2],
        ort_class=ORT_CLASSES[manifest.task],
        js_type=JS_MODEL_TYPES.get(kind),
        dtype=JS_DTYPES.get((manifest.precision, manifest.model.cache_dtype), ""),
        kv_heads=manifest.model.num_key_value_heads,
        head_dim=manifest.model.head_dim,
        cache_dtype=manifest.model.cache_dtype,
    )
    install = REGISTRATION_INSTALL if runtime == "optimum" and registration else INSTALL[runtime]
    return Snippet(runtime, TITLES[runtime], install, "js" if script else "python", code.strip())
