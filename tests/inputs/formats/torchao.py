"""Checkpoints that TorchAO and transformers made (scripts/inputs/torchao_checkpoints.py), and one of Int4Tensor, which
needs a GPU to be made: written by hand."""

import hashlib
import json
import shutil
from functools import partial
from pathlib import Path

import torch
from intaglio.tests import tiny
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..case import Case

FIXTURES = Path(__file__).parent.parent / "fixtures" / "torchao"
FAMILIES = ("qwen2", "exaone4")
VARIANTS = {
    "int8": "Int8Tensor: int8, a scale for each row",
    "int4": "IntxUnpackedToInt8Tensor: int4, groups of 32",
    "fp8": "Float8Tensor: FP8, a scale for each row",
}
GROUP = 32


def make(folder: Path, family: str, variant: str) -> Path:
    """Copy a checkpoint of torchao 0.18."""
    shutil.copytree(FIXTURES / f"{variant}-{family}", folder, dirs_exist_ok=True)
    return folder


def dequantized(folder: Path) -> dict[str, Tensor]:
    """Return ``(qdata - zero_point) * scale``, which has the digests of TorchAO's own dequantization."""
    tensors = load_file(folder / "model.safetensors")
    digests = json.loads((folder / "digests.json").read_text(encoding="utf-8"))
    found = {}
    for name, digest in digests.items():
        prefix = f"{name.removesuffix('.weight')}._weight_"
        numbers, scale = tensors[f"{prefix}qdata"].float(), tensors[f"{prefix}scale"].float()
        width = numbers.shape[1] // scale.shape[1]
        zero = tensors.get(f"{prefix}zero_point", torch.zeros(scale.shape)).float()
        found[name] = (numbers - zero.repeat_interleave(width, 1)) * scale.repeat_interleave(width, 1)
        assert hashlib.sha256(found[name].numpy().tobytes()).hexdigest() == digest
    return found


def make_int4(folder: Path, family: str) -> Path:
    """Write Int4Tensor: two codes in two's complement to a byte, scales and float zero points [K / group, N]."""
    values = tiny.config(family)
    values["quantization_config"] = {
        "quant_method": "torchao",
        "quant_type": {"default": {"_type": "Int4WeightOnlyConfig", "_version": 2, "_data": {"group_size": GROUP}}},
    }
    generator = torch.Generator().manual_seed(2)
    stored: dict[str, Tensor] = {}
    metadata = {"format": "pt"}
    for name, tensor in tiny.weights(values).items():
        if not name.endswith("_proj.weight"):
            stored[name], metadata[name] = tensor, json.dumps({"_type": "Tensor"})
            continue
        prefix = f"{name.removesuffix('.weight')}._weight_"
        rows, columns = tensor.shape
        codes = torch.randint(-8, 8, (rows, columns), generator=generator, dtype=torch.int8)
        stored[f"{prefix}qdata"] = (codes[:, ::2] & 15) | (codes[:, 1::2] << 4)
        scale = 0.02 + 0.05 * torch.rand((columns // GROUP, rows), generator=generator)
        stored[f"{prefix}scale"] = scale.to(torch.bfloat16)
        stored[f"{prefix}zero_point"] = (0.1 * torch.randn(scale.shape, generator=generator)).to(torch.bfloat16)
        metadata[name] = json.dumps(
            {
                "_type": "Int4Tensor",
                "_data": {"block_size": [1, GROUP], "shape": [rows, columns]},
                "_tensor_data_names": ["qdata", "scale", "zero_point"],
            }
        )
    metadata["tensor_names"] = json.dumps([name for name in metadata if "." in name])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values, indent=2), encoding="utf-8")
    save_file(stored, folder / "model.safetensors", metadata)
    return folder


def int4(folder: Path) -> dict[str, Tensor]:
    """Return ``code * scale + zero_point``, what int4_row_quantize_zp of FBGEMM and MSLK inverts."""
    tensors = load_file(folder / "model.safetensors")
    found = {}
    for name in sorted(tensors):
        prefix = name.removesuffix("qdata")
        if prefix == name:
            continue
        packed = tensors[name]
        codes = torch.stack(((packed << 4) >> 4, packed >> 4), -1).flatten(1).float()
        scale, zero = (
            tensors[f"{prefix}{part}"].float().T.repeat_interleave(GROUP, 1) for part in ("scale", "zero_point")
        )
        found[f"{prefix.removesuffix('._weight_')}.weight"] = codes * scale + zero
    return found


_MADE = {
    key: Case("TorchAO", variant, "torchao, transformers", partial(make, variant=key), dequantized)
    for key, variant in VARIANTS.items()
}
CASES: tuple[Case, ...] = (
    _MADE["int8"],
    _MADE["int4"],
    Case(
        "TorchAO",
        "Int4Tensor: int4, groups of 32",
        "a packer of the tests, from the specification",
        make_int4,
        int4,
    ),
)
MORE: tuple[Case, ...] = (_MADE["fp8"],)
"""What is exported as another format is, and only read in the tests."""
