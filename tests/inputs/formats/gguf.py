"""GGUF files with each type of block."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from intaglio.tests import tiny
from intaglio.tests.models.gguf import make
from intaglio.tests.models.gguf.packer import PACKERS
from torch import Tensor

from ..case import Case

FLOATS = ("F16", "BF16")
TYPES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", *PACKERS, "TQ1_0", "TQ2_0", "MXFP4")
SPECIFICATION = "a packer of the tests, from the specification"


def write(folder: Path, family: str, type_name: str) -> Path:
    """Write a file whose matrices amplify as much as those of a tiny checkpoint with a quarter of the width."""
    values = make.config(family)
    narrow = {
        name: tensor / 2 if name.endswith("_proj.weight") else tensor for name, tensor in tiny.weights(values).items()
    }
    return make.write(folder / f"{family}-{type_name.lower()}.gguf", values, type_name, tensors=narrow)


def values(path: Path) -> Mapping[str, Tensor]:
    return make.read_values(path)


def case(type_name: str) -> Case:
    maker: Callable[[Path, str], Path] = partial(write, type_name=type_name)
    made_by = SPECIFICATION if type_name in PACKERS else "gguf"
    return Case("GGUF", type_name, made_by, maker, values, requires="gguf")


CASES: tuple[Case, ...] = tuple(case(name) for name in TYPES)
