"""Tiny checkpoints of GPTQ and AWQ by the packer of the tests."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from intaglio.tests import tiny
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

Array = NDArray[Any]

SIZES: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 320}
PARTS = ("qweight", "qzeros", "scales", "g_idx")


def write(
    folder: Path,
    family: str,
    settings: Mapping[str, Any],
    pack: Callable[[str, Array], Mapping[str, Array] | None],
    **changes: Any,
) -> Path:
    """Write a checkpoint whose projections are packed, its other tensors in float16 as the libraries write them.

    Args:
        settings: ``quantization_config`` of its config.json.
        pack: returns the tensors of a weight, by the name of its module, or None to leave it as it is.
        changes: other values of config.json.
    """
    values = tiny.config(family, **(SIZES | changes)) | {"quantization_config": dict(settings), "dtype": "float16"}
    stored: dict[str, Tensor] = {}
    for name, tensor in tiny.weights(values).items():
        module, part = name.rsplit(".", 1)
        packed = pack(module, tensor.numpy()) if part == "weight" and tensor.dim() == 2 else None
        if packed is None:
            stored[name] = tensor.half()
        else:
            stored |= {f"{module}.{key}": torch.from_numpy(np.ascontiguousarray(a)) for key, a in packed.items()}
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    return folder


def settings_of(folder: Path) -> dict[str, Any]:
    """Return the settings of a checkpoint's quantization."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = config["quantization_config"]
    return found


def dequantized(folder: Path, values: Callable[[str, dict[str, Array]], Array]) -> dict[str, Tensor]:
    """Return every packed weight of a checkpoint by its name where it is not quantized.

    Args:
        values: dequantizes a weight from the name of its module and its tensors.
    """
    stored = load_file(folder / "model.safetensors")
    modules = [name.removesuffix(".qweight") for name in stored if name.endswith(".qweight")]
    found = {}
    for module in modules:
        parts = {part: stored[f"{module}.{part}"].numpy() for part in PARTS if f"{module}.{part}" in stored}
        found[f"{module}.weight"] = torch.from_numpy(values(module, parts))
    return found
