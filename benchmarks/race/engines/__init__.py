"""One file for each tool, all with the same two things: load a model, and continue token ids greedily.

Every tool runs through the runtime that its users have, not through a loop of ours.
"""

import importlib
from typing import Protocol

from ..job import Job

MODULES = {
    "intaglio": "own",
    "onnxruntime-genai": "genai",
    "OpenVINO": "openvino",
    "llama.cpp": "llama",
    "CTranslate2": "ct2",
    "transformers": "torch_eager",
}


class Engine(Protocol):
    """A loaded model. ``version`` names what ran it."""

    version: str
    batches: bool

    def generate(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        """``new`` tokens after each prompt, the likeliest each time; an end token ends nothing.

        Prompts of one call have the same length. Tools whose ``batches`` is False take one.
        """


def import_engine(tool: str) -> type:
    """The engine's class; importing it imports the tool, so that loading a model can be timed without."""
    return importlib.import_module(f".{MODULES[tool]}", __name__).Engine  # type: ignore[no-any-return]


def open_engine(job: Job) -> Engine:
    """The job's model, loaded."""
    engine: Engine = import_engine(job.tool)(job)
    return engine
