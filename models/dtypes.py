"""The float types of weights: their names in intaglio, in safetensors and in torch."""

from collections.abc import Mapping

import torch

from ..artifact import FloatPrecision

TORCH_DTYPES: Mapping[FloatPrecision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
PRECISIONS: Mapping[torch.dtype, FloatPrecision] = {dtype: name for name, dtype in TORCH_DTYPES.items()}

SAFETENSORS_NAMES: Mapping[FloatPrecision, str] = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
"""The dtypes in the headers of safetensors files."""
SAFETENSORS_DTYPES: Mapping[str, torch.dtype] = {
    **{name: TORCH_DTYPES[key] for key, name in SAFETENSORS_NAMES.items()},
    "F64": torch.float64,
}
"""The dtypes of weights that are read; float64 is rounded to float32."""

ITEM_BYTES: Mapping[str, int] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F64", "I64", "U64"), 8),
}
"""The bytes of an item, by the dtype's name in safetensors."""
