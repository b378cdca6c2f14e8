"""The cases of the matrix: family, task, precision and target, and the texts that each task runs on."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intaglio.artifact import TARGETS, Precision, Target, Task

from .checkpoints import FAMILIES

NEW_TOKENS = 24
ON_THE_CPU: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int4")
"""ONNX Runtime has no bf16 kernels for a CPU, so that no runtime here can run such an artifact."""
TURNS: Mapping[str, str] = {
    "qwen2": "<|im_start|>user\nWhere is the city?<|im_end|>\n<|im_start|>assistant\n",
    "exaone4": "[|user|]\nWhere is the city?[|endofturn|]\n[|assistant|]\n",
}
TEXTS: Mapping[Task, list[Any]] = {
    "text-generation": ["The history of the city", "In 1942, the ship", "A naïve café — 3.14 % of 北京 🎉"],
    "text-classification": ["a delightful film", "a waste of time", "the acting is superb but the plot is thin"],
    "token-classification": ["The ship was in the city", "a delightful film in 1942"],
    "question-answering": [["Where is the ship?", "The ship was built in 1942 and is in the city."]],
    "feature-extraction": ["The history of the city", "a delightful film"],
}
BATCH: Mapping[Task, list[Any]] = {
    "text-generation": ["The history of the city and of the river that runs through it", "The ship", "In 1942, the"],
    "text-classification": ["a delightful film", "the acting is superb but the plot is thin"],
}
"""Texts of different lengths that are run as one batch, where the task has a padding token to run them with."""


@dataclass(frozen=True)
class Case:
    """An artifact of the matrix; ``source`` is its checkpoint, or the artifact itself, where it is not a tiny one."""

    family: str
    task: Task
    target: Target
    precision: Precision
    source: str = ""

    @property
    def model(self) -> str:
        return Path(self.source).name if self.source else self.family

    @property
    def name(self) -> str:
        return f"{self.model}-{self.task}-{self.target}-{self.precision}"

    @property
    def texts(self) -> list[Any]:
        turns = [TURNS[self.family]] if self.task == "text-generation" else []
        return [*TEXTS[self.task], *turns]

    def fields(self, artifact: str) -> dict[str, Any]:
        """Return the content of the file that a runner gets."""
        return {
            "artifact": artifact,
            "task": self.task,
            "target": self.target,
            "texts": self.texts,
            "batch": BATCH.get(self.task),
            "max_new_tokens": NEW_TOKENS,
        }


def cases(*, quick: bool) -> Iterator[Case]:
    """Yield the cases, those of a family and a task together.

    Args:
        quick: int4 of each family's text generation, and fp32 of Qwen2's classifier.
    """
    if quick:
        yield Case("qwen2", "text-generation", "ort", "int4")
        yield Case("exaone4", "text-generation", "ort", "int4")
        yield Case("qwen2", "text-classification", "ort", "fp32")
        return
    for family, task, target, precision in itertools.product(FAMILIES, TEXTS, TARGETS, ON_THE_CPU):
        yield Case(family, task, target, precision)
