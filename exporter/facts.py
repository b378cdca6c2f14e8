"""What an artifact's manifest says of the model, and of the tools that made the artifact."""

import platform
from importlib import metadata

from .. import __version__
from ..artifact import FloatPrecision, ModelFacts, Task
from ..contract import CACHE_DTYPES
from ..models.config import ModelConfig

TOOLS = ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors")


def model_facts(config: ModelConfig, task: Task, activations: FloatPrecision) -> ModelFacts:
    """Return what the runtime needs to know of a model."""
    classes = task in ("text-classification", "token-classification")
    return ModelFacts(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        layer_windows=config.layer_windows,
        context_length=config.context_length,
        cache_dtype=CACHE_DTYPES[activations],
        length_dependent_rope=config.rope.length_dependent,
        pad_token_id=config.pad_token_id,
        labels=config.labels if classes else (),
        problem_type=config.problem_type if task == "text-classification" else None,
        attention="causal" if config.causal else "bidirectional",
    )


def tools() -> dict[str, str]:
    """Return the versions of intaglio, of Python, and of the libraries that make an artifact."""
    versions = {name: metadata.version(name) for name in TOOLS}
    return {"intaglio": __version__, "python": platform.python_version(), **versions}
