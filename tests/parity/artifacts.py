"""Sound artifacts of tiny checkpoints, each exported once however many tests ask for it."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intaglio.exporter import export
from intaglio.exporter.quantize.options import QuantizeOptions
from intaglio.tests import tiny

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"


@dataclass(frozen=True)
class Base:
    """A checkpoint and how it was exported.

    ``changes`` and ``rope`` go to ``tiny.config``; ``options`` are those of a quantization; ``trained`` is the folder
    of one of the tests' own checkpoints, which then stands in place of a random one.
    """

    family: str
    task: str = "text-generation"
    precision: str = "fp32"
    target: str = "ort"
    changes: Mapping[str, Any] = field(default_factory=dict)
    rope: Mapping[str, Any] | None = None
    spelling: str = "5"
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    shards: int = 1
    trained: str | None = None

    @property
    def checkpoint_key(self) -> str:
        told = (self.family, self.task, self.changes, self.rope, self.spelling, self.seed, self.shards)
        return self.trained or json.dumps(told, default=repr)

    @property
    def key(self) -> str:
        told = (self.checkpoint_key, self.precision, self.target, self.options)
        return json.dumps(told, default=repr)


@dataclass(frozen=True)
class Pair:
    """An artifact and the checkpoint that it was made from."""

    artifact: Path
    checkpoint: Path


class Shelf:
    """Makes checkpoints and artifacts under one folder, and keeps them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._checkpoints: dict[str, Path] = {}
        self._artifacts: dict[str, Pair] = {}

    def checkpoint(self, base: Base) -> Path:
        if base.trained is not None:
            return CHECKPOINTS / base.trained
        if base.checkpoint_key not in self._checkpoints:
            values = tiny.config(base.family, base.task, spelling=base.spelling, rope=base.rope, **base.changes)
            folder = self.folder / f"checkpoint-{len(self._checkpoints)}"
            tiny.write(folder, values, seed=base.seed, shards=base.shards, tokenizer=True)
            self._checkpoints[base.checkpoint_key] = folder
        return self._checkpoints[base.checkpoint_key]

    def pair(self, base: Base) -> Pair:
        """The sound artifact; not to be changed."""
        if base.key not in self._artifacts:
            source, out = self.checkpoint(base), self.folder / f"artifact-{len(self._artifacts)}"
            options = QuantizeOptions(**base.options) if base.precision in ("int8", "int4") else None
            export(source, out, precision=base.precision, target=base.target, options=options)  # type: ignore[arg-type]
            self._artifacts[base.key] = Pair(out, source)
        return self._artifacts[base.key]

    def copy(self, base: Base, out: Path) -> Pair:
        """A copy of the sound artifact, to be damaged."""
        sound = self.pair(base)
        shutil.copytree(sound.artifact, out)
        return Pair(out, sound.checkpoint)
