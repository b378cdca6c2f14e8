"""The artifacts that the server is tried with."""

from pathlib import Path
from typing import Literal

from intaglio import export
from intaglio.artifact import Task

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
