"""Quantized checkpoints of MLX: MLX quantizes the weights and writes the file, under mlx-lm's names and settings."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from intaglio.tests import tiny
from torch import Tensor

from ..case import Case

SPREAD = 0.5
"""The spread of weights beside that of tiny checkpoints, which are a quarter as wide: activations stay as large."""


def make(folder: Path, family: str, settings: Mapping[str, Any], **form: Any) -> Path:
    """Write a tiny checkpoint whose matrices are all quantized, the embedding and the head too.

    Args:
        settings: ``group_size``, ``bits`` and ``mode``.
        form: ``dtype`` of what is not quantized, and of scales and biases; ``tied`` for a head that is the embedding;
            ``down``: the settings of ``down_proj`` in each layer, if others.
    """
    import mlx.core as mx

    values = tiny.config(family, hidden_size=256, intermediate_size=512, tie_word_embeddings=form.get("tied", False))
    tiny.write(folder, values, tokenizer=True)
    quantization: dict[str, Any] = {"mode": "affine", **settings}
    stored = {}
    for name, tensor in tiny.weights(values).items():
        dtype = getattr(mx, form.get("dtype", "bfloat16"))
        if tensor.ndim == 1:
            stored[name] = mx.array(tensor.numpy()).astype(dtype)
            continue
        array = mx.array(tensor.numpy() * SPREAD).astype(dtype)
        module = name.removesuffix(".weight")
        own = settings
        if "down" in form and module.endswith("down_proj"):
            own = quantization[module] = form["down"]
        parts = mx.quantize(array, **own)
        stored |= dict(zip((name, f"{module}.scales", f"{module}.biases"), parts, strict=False))
    mx.save_safetensors(str(folder / "model.safetensors"), stored, metadata={"format": "mlx"})
    values |= {"quantization": quantization, "quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(values, indent=4), encoding="utf-8")
    return folder


def weights(folder: Path) -> Mapping[str, Tensor]:
    """Return the quantized weights as MLX dequantizes them, with scales and biases in float32."""
    import mlx.core as mx

    settings: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))["quantization"]
    stored: Any = mx.load(str(folder / "model.safetensors"))
    found = {}
    for name in stored:
        module = name.removesuffix(".scales")
        if module == name:
            continue
        own = settings.get(module, settings)
        parts = [stored[part] for part in (name, f"{module}.biases") if part in stored]
        if len(parts) == 2:  # affine
            parts = [part.astype(mx.float32) for part in parts]
        form: Any = {key: own[key] for key in ("group_size", "bits", "mode") if key in own} | {"dtype": mx.float32}
        numbers = mx.dequantize(stored[f"{module}.weight"], *parts, **form)
        found[f"{module}.weight"] = torch.from_numpy(np.array(numbers))
    return found


def case(variant: str, group: int, bits: int, mode: str = "affine", **form: Any) -> Case:
    settings = {"group_size": group, "bits": bits, "mode": mode}
    return Case("MLX", variant, "mlx", partial(make, settings=settings, **form), weights, requires="mlx")


CASES = (
    case("4 bits, groups of 64", 64, 4),
    case("4 bits, groups of 32, float16, tied embedding", 32, 4, dtype="float16", tied=True),
    case("8 bits, groups of 128", 128, 8),
    case("4 bits, down_proj 6 bits, groups of 64", 64, 4, down={"group_size": 64, "bits": 6}),
    case("5 bits, groups of 64", 64, 5),
    case("3 bits, groups of 32", 32, 3),
    case("2 bits, groups of 64", 64, 2),
    case("MXFP4, groups of 32", 32, 4, "mxfp4"),
    case("NVFP4, groups of 16", 16, 4, "nvfp4"),
    case("MXFP8, groups of 32", 32, 8, "mxfp8"),
)
