"""Checkpoints that transformers quantizes with bitsandbytes, and saves."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from intaglio.tests import tiny
from safetensors.torch import load_file
from torch import Tensor

from ..case import Case

STATE = ".quant_state.bitsandbytes__"


def make(folder: Path, family: str, **settings: Any) -> Path:
    """Write a tiny checkpoint, load it quantized, and save that.

    Args:
        settings: of transformers' BitsAndBytesConfig.
    """
    import transformers

    plain = tiny.write(folder / "float", tiny.config(family), tokenizer=True)
    asked = transformers.BitsAndBytesConfig(**settings)  # type: ignore[no-untyped-call]
    model = transformers.AutoModelForCausalLM.from_pretrained(plain, quantization_config=asked, dtype=torch.float32)
    model.save_pretrained(folder / "quantized")
    transformers.AutoTokenizer.from_pretrained(plain).save_pretrained(folder / "quantized")
    return folder / "quantized"


def weights(folder: Path) -> Mapping[str, Tensor]:
    """Return the quantized weights as bitsandbytes dequantizes them in float32."""
    from bitsandbytes import functional

    stored = load_file(folder / "model.safetensors")
    found = dict(four_bits(stored))
    for name, scales in stored.items():
        module, _, last = name.rpartition(".")
        if last == "SCB":
            found[f"{module}.weight"] = functional.int8_vectorwise_dequant(stored[f"{module}.weight"], scales)
    return found


def four_bits(stored: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights in 4 bits.

    Each is dequantized as one row: for a matrix, the CPU kernel of bitsandbytes 0.50 may begin a block with every row,
    which is not how bitsandbytes quantizes it.
    """
    from bitsandbytes import functional

    for name in stored:
        weight, dot, _ = name.partition(STATE)
        if not dot:
            continue
        parts = {
            key.removeprefix(f"{weight}."): tensor for key, tensor in stored.items() if key.startswith(f"{weight}.")
        }
        state = functional.QuantState.from_dict(parts, device=torch.device("cpu"))
        shape = torch.Size(state.shape or ())
        state.shape, state.dtype = torch.Size([shape.numel()]), torch.float32
        yield weight, functional.dequantize_4bit(stored[weight], state).view(shape)


def case(variant: str, **settings: Any) -> Case:
    maker: Callable[[Path, str], Path] = partial(make, **settings)
    return Case("bitsandbytes", variant, "transformers, bitsandbytes", maker, weights, requires="bitsandbytes")


def four(quant_type: str, double: bool, storage: str = "uint8") -> dict[str, Any]:
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": quant_type,
        "bnb_4bit_use_double_quant": double,
        "bnb_4bit_quant_storage": storage,
    }


CASES = (
    case("NF4, blocks of 64, double quantization", **four("nf4", True)),
    case("NF4, blocks of 64", **four("nf4", False)),
    case("NF4, blocks of 64, stored as bfloat16", **four("nf4", True, "bfloat16")),
    case("FP4, blocks of 64, double quantization", **four("fp4", True)),
    case("LLM.int8", load_in_8bit=True),
)
