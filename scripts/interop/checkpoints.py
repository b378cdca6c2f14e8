"""Small checkpoints of Qwen2 and EXAONE 4.0 for every task: the trained tiny ones, and random heads on them."""

import json
import shutil
from pathlib import Path

import torch
from intaglio.artifact import Task
from intaglio.tests import tiny
from safetensors.torch import load_file

from .environments import ROOT

CHECKPOINTS = ROOT / "tests" / "checkpoints"
FAMILIES = ("qwen2", "exaone4")


def checkpoint(folder: Path, family: str, task: Task) -> Path:
    """Return a checkpoint of a family for a task; one with a head is written to ``folder``.

    The head has weights of the size that makes its labels differ among texts; the rest is that of the trained model.
    """
    trained = CHECKPOINTS / f"tiny-{family}"
    if task in ("text-generation", "feature-extraction"):
        return trained
    if (family, task) == ("qwen2", "text-classification"):
        return CHECKPOINTS / "tiny-qwen2-sst2"
    values = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    values["architectures"] = [tiny.CLASSES[family] + tiny.SUFFIXES[task]]
    values.setdefault("pad_token_id", 4096)
    if task in ("text-classification", "token-classification"):
        values |= {"id2label": {"0": "bad", "1": "fair", "2": "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}
    body: dict[str, torch.Tensor] = {}
    for file in sorted(trained.glob("*.safetensors")):
        body |= load_file(file)
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, shape in tiny.shapes(values).items():
        stored = body.get("model." + name.removeprefix(tiny.PREFIXES[task]))
        tensors[name] = stored if stored is not None else 0.5 * torch.randn(shape, generator=generator)
    tiny.write(folder, values, tensors=tensors, dtype=torch.bfloat16)
    for path in trained.iterdir():
        if "token" in path.name:
            shutil.copyfile(path, folder / path.name)
    return folder
