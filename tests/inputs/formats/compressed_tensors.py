"""Checkpoints of compressed-tensors, packed and unpacked by that library; act-order, which it dropped, by hand."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from intaglio.tests import tiny
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..case import Case

FIXTURES = Path(__file__).parent.parent / "fixtures" / "llmcompressor"
FAMILIES = ("qwen2", "exaone4")
LIBRARY = "compressed_tensors"
ATTENTION = r"re:.*self_attn\.(q|k|v|o)_proj$"
WIDE: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 384, "num_hidden_layers": 4}
NARROWER = 0.5
"""Of weights: sums over more columns are as large as those of the smaller checkpoints, and their rounding too."""


def make(folder: Path, family: str, preset: str | Mapping[str, str], **weights: Any) -> Path:
    """Write a checkpoint whose linear layers a preset of the library quantizes, round to nearest.

    Args:
        preset: by target; one name stands for all linear layers.
        weights: other values for the preset's weights.
    """
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.compressors.format import infer_module_format
    from compressed_tensors.quantization import preset_name_to_scheme

    values = tiny.config(family, **WIDE)
    presets = {"Linear": preset} if isinstance(preset, str) else preset
    schemes = {}
    for target, name in presets.items():
        schemes[target] = preset_name_to_scheme(name, [target])
        settings = schemes[target].weights.model_dump() | weights
        schemes[target].weights = type(schemes[target].weights)(**settings)
        schemes[target].format = infer_module_format(torch.nn.Linear, schemes[target])
    stored: dict[str, Tensor] = {}
    for name, tensor in tiny.weights(values).items():
        module, _, part = name.rpartition(".")
        if part != "weight" or not module.endswith("_proj"):
            stored[name] = tensor
            continue
        scheme = _scheme_of(module, schemes)
        compressor = BaseCompressor.get_value_from_registry(scheme.format)
        parameters: Any = _parameters(NARROWER * tensor, scheme.weights)
        packed: Any = compressor.compress(parameters, scheme)
        stored |= {f"{module}.{part}": tensor.contiguous() for part, tensor in packed.items()}
        if scheme.input_activations is not None and scheme.input_activations.dynamic is False:
            stored[f"{module}.input_scale"] = torch.tensor([0.05])
    formats = {scheme.format for scheme in schemes.values()}
    values["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {
            f"group_{index}": scheme.model_dump(mode="json") for index, scheme in enumerate(schemes.values())
        },
    }
    return write(folder, values, stored)


def write(folder: Path, values: Mapping[str, Any], stored: Mapping[str, Tensor]) -> Path:
    """Write config.json and the tensors as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values, indent=2), encoding="utf-8")
    save_file(dict(stored), folder / "model.safetensors", {"format": "pt"})
    return folder


def _scheme_of(module: str, schemes: Mapping[str, Any]) -> Any:
    from compressed_tensors.utils.match import match_name

    return next((one for target, one in schemes.items() if match_name(module, target)), schemes.get("Linear"))


def _parameters(weight: Tensor, args: Any) -> dict[str, Tensor]:
    """Return what the library compresses: the weight, and scales and zero points from its smallest and largest."""
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    rows, columns = weight.shape
    height, width = {
        "tensor": (rows, columns),
        "channel": (1, columns),
        "block": args.block_structure or (1, 1),
    }.get(args.strategy, (1, args.group_size))
    padded = torch.nn.functional.pad(weight, (0, -columns % width, 0, -rows % height))
    blocks = padded.reshape(padded.shape[0] // height, height, -1, width)
    least, most = blocks.amin((1, 3)), blocks.amax((1, 3))
    if args.strategy == "tensor":
        least, most = least.reshape(1), most.reshape(1)
    made = {"weight": weight}
    if args.strategy == "tensor_group":
        made["weight_global_scale"] = generate_gparam(weight.min(), weight.max()).reshape(1)
    scale, zero = calculate_qparams(least, most, args, made.get("weight_global_scale"))
    plain = args.type == "int" or args.strategy in ("tensor", "channel", "block")
    made["weight_scale"] = scale.to(torch.bfloat16) if plain else scale
    return made | {"weight_zero_point": zero}


def decompressed(folder: Path) -> dict[str, Tensor]:
    """Return the weights as the library decompresses them, with scales in float32."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    parsed: Any = QuantizationConfig.model_validate(config)
    schemes = {target: scheme for scheme in parsed.config_groups.values() for target in scheme.targets}
    tensors = load_file(folder / "model.safetensors")
    found = {}
    for module in sorted(name.removesuffix(".weight_scale") for name in tensors if name.endswith(".weight_scale")):
        parts: Any = {
            name.removeprefix(f"{module}."): tensor for name, tensor in tensors.items() if name.startswith(f"{module}.")
        }
        scheme = _scheme_of(module, schemes)
        form = scheme.format or config["format"]
        if form in ("nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized"):
            found[f"{module}.weight"] = _float32(parts, scheme, form)
            continue
        parts["weight_scale"] = parts["weight_scale"].float()
        found[f"{module}.weight"] = BaseCompressor.get_value_from_registry(form).decompress(parts, scheme)["weight"]
    return found


def _float32(parts: Mapping[str, Tensor], scheme: Any, form: str) -> Tensor:
    """Do what the library's decompression does in bfloat16, with its own functions, in float32."""
    from compressed_tensors.compressors.mx_utils import decompress_mx_scale
    from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
    from compressed_tensors.quantization.lifecycle.forward import dequantize

    scale = parts["weight_scale"]
    scale = decompress_mx_scale(scale).float() if form.startswith("mx") else scale.float()
    if "weight_packed" in parts:
        height, half = parts["weight_packed"].shape
        numbers = unpack_fp4_from_uint8(parts["weight_packed"], height, 2 * half, torch.float32)
    else:
        numbers = parts["weight"].float()
    found: Tensor = dequantize(
        numbers, scale, args=scheme.weights, dtype=torch.float32, global_scale=parts.get("weight_global_scale")
    )
    return found


GROUP = 32


def make_reordered(folder: Path, family: str) -> Path:
    """Write 4-bit weights with act-order: ``weight_g_idx`` has the group of each column."""
    values = tiny.config(family, **WIDE)
    generator = torch.Generator().manual_seed(1)
    stored: dict[str, Tensor] = {}
    for name, tensor in tiny.weights(values).items():
        module, _, part = name.rpartition(".")
        if part != "weight" or not module.endswith("_proj"):
            stored[name] = tensor
            continue
        rows, columns = tensor.shape
        groups = torch.arange(columns)[torch.randperm(columns, generator=generator)] // GROUP
        codes = torch.randint(0, 16, (rows, columns), generator=generator)
        stored |= {
            f"{module}.weight_packed": _pack(codes),
            f"{module}.weight_scale": 0.01 + 0.02 * torch.rand((rows, columns // GROUP), generator=generator),
            f"{module}.weight_zero_point": _pack(
                torch.randint(6, 10, (rows, columns // GROUP), generator=generator).T.contiguous()
            ).T.contiguous(),
            f"{module}.weight_shape": torch.tensor([rows, columns]),
            f"{module}.weight_g_idx": groups.to(torch.int32),
        }
    weights = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": GROUP}
    values["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights | {"actorder": "group"}}},
    }
    return write(folder, values, stored)


def _pack(codes: Tensor) -> Tensor:
    """Pack codes of 4 bits along rows, the first in the lowest bits: int32 [n, k / 8]."""
    words = (codes.reshape(len(codes), -1, 8) << (4 * torch.arange(8))).sum(-1)
    return words.to(torch.int32)


def _unpack(words: Tensor) -> Tensor:
    return ((words.unsqueeze(-1) >> (4 * torch.arange(8))) & 15).flatten(1)


def reordered(folder: Path) -> dict[str, Tensor]:
    """Return the weights of ``make_reordered``: ``scale[g_idx] * (code - zero_point[g_idx])``."""
    tensors = load_file(folder / "model.safetensors")
    found = {}
    for module in sorted(name.removesuffix(".weight_g_idx") for name in tensors if name.endswith(".weight_g_idx")):
        groups = tensors[f"{module}.weight_g_idx"].long()
        zeros = _unpack(tensors[f"{module}.weight_zero_point"].T).T
        codes = _unpack(tensors[f"{module}.weight_packed"])
        found[f"{module}.weight"] = tensors[f"{module}.weight_scale"][:, groups] * (codes - zeros[:, groups]).float()
    return found


def copied(folder: Path, family: str) -> Path:
    """Copy a checkpoint of llmcompressor 0.14, with several groups (scripts/inputs/llmcompressor_checkpoints.py)."""
    shutil.copytree(FIXTURES / family, folder, dirs_exist_ok=True)
    return folder


def checked(folder: Path) -> dict[str, Tensor]:
    """Return what the library decompresses, which is what it did where the checkpoint was made."""
    found = decompressed(folder)
    digests = json.loads((folder / "digests.json").read_text(encoding="utf-8"))
    assert digests == {
        name: hashlib.sha256(weight.contiguous().numpy().tobytes()).hexdigest() for name, weight in found.items()
    }
    return found


def _case(variant: str, preset: str | Mapping[str, str], **weights: Any) -> Case:
    maker: Callable[[Path, str], Path] = partial(_made, preset=preset, weights=weights)
    return Case("compressed-tensors", variant, "compressed-tensors", maker, decompressed, LIBRARY)


def _made(folder: Path, family: str, *, preset: str | Mapping[str, str], weights: Mapping[str, Any]) -> Path:
    return make(folder, family, preset, **weights)


CASES: tuple[Case, ...] = (
    _case("int4, groups of 32", "W4A16", group_size=32),
    Case(
        "compressed-tensors",
        "int4, groups of 32, zero points, act-order",
        "a packer of the tests, from the specification",
        make_reordered,
        reordered,
    ),
    _case("W8A8: int8, a scale for each row, dynamic activations", "W8A8"),
    Case("compressed-tensors", "W8A8 in attention, int4 elsewhere", "llmcompressor", copied, checked, LIBRARY),
    _case("FP8, one scale, static activations", "FP8"),
    _case("NVFP4", "NVFP4A16"),
)
MORE: tuple[Case, ...] = (
    _case("int4, groups of 128, zero points", "W4A16_ASYM"),
    _case("int8, a scale for each row", "W8A16", strategy="channel", group_size=None),
    _case("int8, groups of 128", "W8A16"),
    _case("int3, groups of 128", "W3A16"),
    _case("int8 in attention, int4 elsewhere", {ATTENTION: "W8A16", "Linear": "W4A16"}),
    _case("FP8, a scale for each row, dynamic activations", "FP8_DYNAMIC"),
    _case("FP8, blocks of 128 x 128", "FP8_BLOCK"),
    _case("MXFP4", "MXFP4A16"),
    _case("MXFP8", "MXFP8A16"),
)
"""What is exported as one of the others is, and only read in the tests."""
