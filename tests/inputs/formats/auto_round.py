"""Checkpoints of auto-round: symmetric ones in GPTQ's layout, others with zero points as they are, 4 and 8 bits."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from ..int32_words import Zeros, gptq_values
from ..library_folder import bits_of, case

Array = NDArray[Any]


def values(settings: Mapping[str, Any], stored: dict[str, Array]) -> Array:
    """Dequantize a weight of a library's checkpoint."""
    kind: Zeros = "v1" if "gptq" in settings["packing_format"] else "v2"
    return gptq_values(stored, bits_of(stored), kind, settings["group_size"])


FIXTURES = {"qwen2": "auto-round", "exaone4": "auto-round-gptq"}

CASES = (case("auto-round", "4 and 8 bits by module, groups of 32", "auto-round", FIXTURES, values),)
