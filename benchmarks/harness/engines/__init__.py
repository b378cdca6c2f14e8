"""One file for each tool, all with the same classes: an ``Engine`` that generates, a ``Logits`` for the quality.

An engine is the runtime that the tool's users have, with its defaults.
"""

import importlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..job import Job

Floats = NDArray[np.float32]
Tokens = NDArray[np.int64]

MODULES = {
    "intaglio": "intaglio_runtime",
    "onnxruntime-genai": "genai",
    "OpenVINO": "openvino_runtime",
    "llama.cpp": "llama",
    "llama.cpp-avx2": "llama",
    "ik_llama.cpp": "ik_llama",
    "ik_llama.cpp-avx2": "ik_llama",
    "CTranslate2": "ct2",
    "transformers": "transformers_eager",
}


class Engine(Protocol):
    """A loaded model. ``version`` names the packages that run it."""

    version: str
    batches: bool

    def __init__(self, job: Job) -> None: ...

    def generate(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        """Return ``new`` tokens after each prompt, the most likely each time; end tokens do not end a sequence.

        Prompts of one call have the same length. An engine without ``batches`` takes one prompt.
        """
        ...


class LogitsModel(Protocol):
    """A loaded model that computes logits."""

    def logits(self, tokens: Tokens) -> Floats:
        """Return the logits of every position of a text: [S] -> [S, V]."""
        ...


def import_engine(tool: str) -> type[Engine]:
    """Return the engine's class; this imports the tool, so that loading a model is timed without it."""
    engine: type[Engine] = _module(tool).Engine
    return engine


def open_logits(job: Job, **options: Any) -> LogitsModel:
    """Load the job's model for its logits."""
    model: LogitsModel = _module(job.tool).Logits(job, **options)
    return model


def _module(tool: str) -> Any:
    return importlib.import_module(f".{MODULES[tool]}", __name__)
