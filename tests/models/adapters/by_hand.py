"""Adapters written without peft: the smallest that are right, and what a test changes of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from intaglio.models.adapters.given import Adapter, find_adapters
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.reading.options import ReadOptions
from safetensors.torch import save_file
from torch import Tensor

Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": r"model\.layers\.0\.self_attn\.q_proj",
}


def noise(*shape: int) -> Tensor:
    return 0.2 * torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def matrices(module: str = Q_PROJ, rank: int = 4, rows: int = 64, columns: int = 64) -> dict[str, Tensor]:
    """Return the two matrices of a module."""
    return {f"{module}.lora_A.weight": noise(rank, columns), f"{module}.lora_B.weight": noise(rows, rank)}


def write(folder: Path, tensors: Mapping[str, Tensor] | None = None, **changes: Any) -> Path:
    """Write an adapter of one projection; None as a change leaves the key out."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {key: value for key, value in {**CONFIG, **changes}.items() if value is not None}
    (folder / "adapter_config.json").write_text(json.dumps(values), encoding="utf-8")
    found = matrices() if tensors is None else tensors
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder / "adapter_model.safetensors")
    return folder


def opened(base: Path, *adapters: Path | Adapter) -> Checkpoint:
    """Open a base with adapters."""
    return Checkpoint(base, ReadOptions(adapters=find_adapters(adapters)))
