"""Sound artifacts of tiny checkpoints, each exported once however many tests ask for it."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from intaglio.exporter import export
from intaglio.exporter.quantize.options import QuantizeOptions
from intaglio.parity import CheckOptions
from intaglio.tests import tiny
from safetensors import safe_open

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
QUICK = CheckOptions(windows=2, window=96, steps=8)


@dataclass(frozen=True)
class Base:
    """A checkpoint and how it was exported.

    ``changes`` and ``rope`` go to ``tiny.config``; ``options`` are those of a quantization; ``trained`` is the folder
    of one of the tests' own checkpoints, which then replaces a random one: for another task than its own
    under a random head.
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
        key = (self.family, self.task, self.changes, self.rope, self.spelling, self.seed, self.shards)
        return f"{self.trained} {self.task}" if self.trained else json.dumps(key, default=repr)

    @property
    def key(self) -> str:
        key = (self.checkpoint_key, self.precision, self.target, self.options)
        return json.dumps(key, default=repr)


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
        if base.trained is not None and base.task == _task(CHECKPOINTS / base.trained):
            return CHECKPOINTS / base.trained
        if base.checkpoint_key not in self._checkpoints:
            folder = self.folder / f"checkpoint-{len(self._checkpoints)}"
            self._checkpoints[base.checkpoint_key] = _written(base, folder)
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


def _written(base: Base, folder: Path) -> Path:
    if base.trained is not None:
        return _another_head(CHECKPOINTS / base.trained, base.task, folder)
    values = tiny.config(base.family, base.task, spelling=base.spelling, rope=base.rope, **base.changes)
    return tiny.write(folder, values, seed=base.seed, shards=base.shards, tokenizer=True)


def _task(folder: Path) -> str:
    return tiny.task_of(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def _another_head(trained: Path, task: str, folder: Path) -> Path:
    """A trained causal LM's trunk under a random head."""
    values = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    values["architectures"] = [tiny.CLASSES[values["model_type"]] + tiny.SUFFIXES[task]]
    if "classification" in task:
        values |= {"id2label": {"0": "bad", "1": "fair", "2": "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}
    tensors = {}
    for name, shape in tiny.shapes(values).items():
        if "layers." in name or "norm" in name or "embed" in name:
            tensors[name] = _tensor(trained, "model." + name.removeprefix(tiny.PREFIXES[task]))
        else:
            tensors[name] = 0.2 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    tiny.write(folder, values, tensors=tensors)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(trained / name, folder / name)
    return folder


def _tensor(folder: Path, name: str) -> torch.Tensor:
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            if name in file.keys():  # noqa: SIM118 - safe_open is not a mapping
                found: torch.Tensor = file.get_tensor(name)
                return found
    raise KeyError(name)
