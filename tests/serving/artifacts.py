"""The artifacts that the server is tried with."""

from pathlib import Path
from typing import Literal

from intaglio import export
from intaglio.artifact import Task
from intaglio.tests import tiny

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
ARTIFACTS: dict[str, tuple[str, Task | Literal["auto"]]] = {
    "qwen2": ("tiny-qwen2", "auto"),
    "exaone4": ("tiny-exaone4", "auto"),
    "sst2": ("tiny-qwen2-sst2", "auto"),
    "encoder": ("tiny-qwen2", "feature-extraction"),
}
"""Artifacts by name: the trained tiny checkpoint that each is made of, and its task."""


def export_all(folder: Path) -> dict[str, Path]:
    """Export the artifacts into a folder; return them by name."""
    made = {}
    for name, (checkpoint, task) in ARTIFACTS.items():
        made[name] = folder / name
        export(CHECKPOINTS / checkpoint, made[name], task=task)
    return made


HEADS: dict[str, Task] = {"embed": "feature-extraction", "tag": "token-classification", "answer": "question-answering"}
"""Tasks of random weights by the verb that runs them."""


def export_heads(folder: Path) -> dict[str, Path]:
    """Export artifacts of random weights for embeddings, tags and answers; return them by their verbs."""
    made = {}
    for verb, task in HEADS.items():
        tiny.write(folder / f"{verb}-checkpoint", tiny.config("qwen2", task), tokenizer=True)
        made[verb] = folder / verb
        export(folder / f"{verb}-checkpoint", made[verb])
    return made
