"""Tiny checkpoints that GPTQModel and auto-round wrote, from ``fixtures``, with the digests of what they dequantize."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from .case import Case
from .packed_folder import dequantized, settings_of

Array = NDArray[Any]

FIXTURES = Path(__file__).parent / "fixtures"
DIGESTS = "dequantized.json"

Values = Callable[[Mapping[str, Any], dict[str, Array]], Array]
"""Dequantizes a weight from the settings of its checkpoint and its tensors."""


def make(names: Mapping[str, str], folder: Path, family: str) -> Path:
    """Copy the checkpoint of a family."""
    shutil.copytree(FIXTURES / names[family], folder, dirs_exist_ok=True)
    return folder


def weights(values: Values, folder: Path) -> Mapping[str, Tensor]:
    """Return the quantized weights, after a check that they are the library's own bit for bit."""
    settings = settings_of(folder)
    found = dequantized(folder, lambda _, stored: values(settings, stored))
    expected = json.loads((folder / DIGESTS).read_text(encoding="utf-8"))
    assert {name: digest(one) for name, one in found.items()} == expected
    return found


def digest(weight: Tensor) -> str:
    """Return the SHA-256 of the numbers of a weight in float32, with zeros of both signs alike."""
    return hashlib.sha256((weight + 0.0).contiguous().numpy().astype("<f4").tobytes()).hexdigest()


def bits_of(stored: Mapping[str, Array]) -> int:
    """Return the bits of a weight by the shapes of its tensors."""
    return int(stored["qzeros"].shape[1] * 32 // stored["scales"].shape[1])


def case(format: str, variant: str, library: str, names: Mapping[str, str], values: Values) -> Case:
    """Return the case of fixtures, by family."""
    return Case(format, variant, library, partial(make, names), partial(weights, values))
