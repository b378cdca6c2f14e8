"""Checkpoints in FP8 with scales beside the weights, and their numbers as transformers dequantizes them."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from intaglio.tests import tiny
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..case import Case

PACKER = "a packer of the tests, from the specification"
SIZES: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 384}
NARROWER = 0.5
"""Of weights: sums over more columns are as large as those of the smaller checkpoints, and their rounding too."""
MOST = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0}
BLOCK = (128, 128)


def make(
    folder: Path,
    family: str,
    *,
    block: tuple[int | None, int | None] | None,
    scale: str = "weight_scale",
    dtype: torch.dtype = torch.float8_e4m3fn,
    settings: Mapping[str, Any] | None = None,
    activations: bool = False,
    **changes: Any,
) -> Path:
    """Write a checkpoint whose linear layers are in FP8.

    Args:
        block: the rows and columns that share a scale, None for all of them; no scales where it is None.
        scale: what the tensor of scales is called.
        settings: ``quantization_config``.
        activations: also write scales of the activations.
        changes: to the config.
    """
    values = tiny.config(family, **(SIZES | changes))
    if settings is not None:
        values["quantization_config"] = dict(settings)
    stored: dict[str, Tensor] = {}
    for name, tensor in tiny.weights(values).items():
        if not name.endswith("_proj.weight"):
            stored[name] = tensor.to(torch.bfloat16)
            continue
        tensor = NARROWER * tensor
        module = name.removesuffix(".weight")
        if block is None:
            stored[name] = tensor.to(dtype)
            continue
        scales = _largest(tensor, block) / MOST[dtype]
        stored[name] = (tensor / spread(scales, tensor.shape, block)).to(dtype)
        stored[f"{module}.{scale}"] = scales.reshape(()) if block == (None, None) else scales
        if activations:
            stored[f"{module}.input_scale"] = torch.tensor(0.05)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values, indent=2), encoding="utf-8")
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    return folder


def _largest(weight: Tensor, block: tuple[int | None, int | None]) -> Tensor:
    rows, columns = weight.shape
    height, width = block[0] or rows, block[1] or columns
    padded = torch.nn.functional.pad(weight.abs(), (0, -columns % width, 0, -rows % height))
    return padded.reshape(padded.shape[0] // height, height, -1, width).amax((1, 3))


def spread(scales: Tensor, shape: torch.Size, block: tuple[int | None, int | None]) -> Tensor:
    """Return the scale of each number of a weight [N, K]."""
    rows, columns = shape
    down, across = torch.arange(rows) // (block[0] or rows), torch.arange(columns) // (block[1] or columns)
    return scales[down][:, across]


def dequantized(folder: Path) -> dict[str, Tensor]:
    """Return the weights as transformers dequantizes them; those without scales are cast."""
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    tensors = load_file(folder / "model.safetensors")
    found = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in MOST:
            continue
        module = name.removesuffix(".weight")
        scales = tensors.get(f"{module}.weight_scale_inv", tensors.get(f"{module}.weight_scale"))
        if scales is None:
            found[name] = tensor.float()
            continue
        scales = scales.reshape(scales.shape if scales.dim() == 2 else (-1, 1))
        dequantize: Any = Fp8Dequantize
        found[name] = dequantize(None)._dequantize_one(tensor, scales, torch.float32)
    return found


FINE = {
    "quant_method": "fp8",
    "activation_scheme": "dynamic",
    "fmt": "e4m3",
    "weight_block_size": list(BLOCK),
    "modules_to_not_convert": ["lm_head"],
}
STATIC = {"quant_method": "fp8", "activation_scheme": "static"}
FBGEMM = {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head"]}
MODELOPT = {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": None}

_ALL: tuple[Case, ...] = tuple(
    Case("FP8", variant, PACKER, partial(make, **options), dequantized)
    for variant, options in (
        ("blocks of 128 x 128", {"block": BLOCK, "scale": "weight_scale_inv", "settings": FINE}),
        ("one scale, static activations", {"block": (None, None), "settings": STATIC, "activations": True}),
        ("a scale for each row (fbgemm)", {"block": (1, None), "settings": FBGEMM}),
        ("one scale (ModelOpt)", {"block": (None, None), "settings": MODELOPT, "activations": True}),
        ("E5M2, one scale", {"block": (None, None), "dtype": torch.float8_e5m2, "settings": STATIC}),
        ("no scales", {"block": None}),
    )
)
CASES, MORE = _ALL[:2], _ALL[2:]
"""MORE is exported as one of the others is, and only read in the tests."""
