"""Weights that bitsandbytes quantized, as transformers saves them: NF4 and FP4 in 4 bits, and LLM.int8.

Whether a weight is in 4 bits, in 8, or not quantized is what its stored tensors say; config.json must not contradict
them. A config.json that asks for quantization while the model is loaded may stand beside float weights: those are read.

Sources: QLoRA, https://arxiv.org/abs/2305.14314; LLM.int8(), https://arxiv.org/abs/2208.07339; the functions
``QuantState.as_dict`` and ``int8_vectorwise_dequant`` of bitsandbytes.
"""

from pathlib import Path

from ...errors import CheckpointError, UnsupportedError
from ...files.json_fields import JSONFields
from ..storage.store import TensorStore
from .bitsandbytes_4bit import QUANT_TYPES, STATE, FourBitWeight, read_4bit
from .bitsandbytes_int8 import SCALES, Int8Weight, read_int8
from .stored import AGAIN
from .weights import QuantizedWeight, QuantizedWeights

FOUR_BITS, EIGHT_BITS = "load_in_4bit", "load_in_8bit"
QUANT_TYPE = "bnb_4bit_quant_type"
SKIPPED = "llm_int8_skip_modules"
KNOWN = ("quant_method", FOUR_BITS, EIGHT_BITS, f"_{FOUR_BITS}", f"_{EIGHT_BITS}")
KNOWN_PREFIXES = ("bnb_4bit_", "llm_int8_")
"""Other settings: they concern activations, or how a float checkpoint is quantized."""


def read_bitsandbytes(settings: JSONFields, store: TensorStore, folder: Path) -> QuantizedWeights:
    """Read the weights that bitsandbytes quantized; errors as ``Reader``."""
    _check(settings)
    fours, eights = _four_bits(store), _eight_bits(store)
    weights: dict[str, QuantizedWeight] = {**fours, **eights}
    _check_agreement(settings, fours, eights)
    notes = []
    if not weights:
        notes.append(
            f"{settings.where} asks bitsandbytes to quantize the model while it is loaded; the weights are stored in "
            "float, and read as they are"
        )
    if eights:
        notes.append(
            "LLM.int8: the weights are read as int8 with one scale a row; bitsandbytes rounds most activations to int8 "
            "too while it computes, which is not done here"
        )
    stored = frozenset(name for four in fours.values() for name in four.stored)
    stored |= frozenset(name for eight in eights.values() for name in eight.stored)
    _check_rest(store, stored)
    return QuantizedWeights(weights, stored, tuple(notes))


def _four_bits(store: TensorStore) -> dict[str, FourBitWeight]:
    types: dict[str, str] = {}
    for name, info in store.tensors.items():
        weight, dot, quant_type = name.rpartition(STATE)
        if not dot:
            continue
        if quant_type not in QUANT_TYPES:
            raise UnsupportedError(
                f"{info.file}: tensor {name} is of a type of bitsandbytes that is not read (those that are: "
                f"{', '.join(QUANT_TYPES)}); export the checkpoint that it was made from"
            )
        if weight in types:
            raise CheckpointError(f"{info.file}: tensor {weight} has two quantization states, nf4 and fp4; {AGAIN}")
        types[weight] = quant_type
    return {weight: read_4bit(store, weight, quant_type) for weight, quant_type in types.items()}


def _eight_bits(store: TensorStore) -> dict[str, Int8Weight]:
    modules = [name.removesuffix(SCALES) for name in store.tensors if name.endswith(SCALES)]
    return {f"{module}.weight": read_int8(store, module) for module in modules}


def _check(settings: JSONFields) -> None:
    for key in settings.values:
        if key not in KNOWN and not key.startswith(KNOWN_PREFIXES):
            raise UnsupportedError(
                f"{settings.where} has {key[:60]!r}, a setting of bitsandbytes that is not known here; export the "
                "checkpoint that it was made from"
            )
    settings.texts(SKIPPED)
    if settings.boolean(FOUR_BITS) and settings.boolean(EIGHT_BITS):
        raise CheckpointError(f"{settings.where} has both {FOUR_BITS} and {EIGHT_BITS}; fetch config.json again")


def _check_agreement(settings: JSONFields, fours: dict[str, FourBitWeight], eights: dict[str, Int8Weight]) -> None:
    for weights, key in ((fours, FOUR_BITS), (eights, EIGHT_BITS)):
        if weights and not settings.boolean(key):
            raise CheckpointError(
                f"{settings.where} does not say {key}, and {next(iter(weights))} is stored so; {AGAIN}"
            )
    stated = settings.text(QUANT_TYPE)
    for name, weight in fours.items():
        if stated is not None and weight.quant_type != stated:
            raise CheckpointError(
                f"{settings.where}: {QUANT_TYPE} is {stated[:60]!r}, and {name} is stored in {weight.quant_type}; "
                f"{AGAIN}"
            )


def _check_rest(store: TensorStore, stored: frozenset[str]) -> None:
    """Check that no tensor is left that only a quantized weight has."""
    for name, info in store.tensors.items():
        if name not in stored and (info.dtype in ("I8", "U8") or name.endswith((".absmax", ".quant_map"))):
            raise CheckpointError(
                f"{info.file}: tensor {name} ({info.dtype}) belongs to a quantized weight whose other tensors "
                f"({STATE[1:]}*, or {SCALES[1:]}) are missing; {AGAIN}"
            )
