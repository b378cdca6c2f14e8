"""A checkpoint in a format of others: how it is made, and what its own library says that it computes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True)
class Case:
    """One format in one form.

    Args:
        format: its name in docs/inputs.md, such as "GPTQ".
        variant: the form, such as "4 bits, groups of 128, act-order".
        made_by: the library that makes it, or "a packer of the tests, from the specification".
        make: writes a tiny checkpoint of a family ("qwen2" or "exaone4") into an empty folder; returns what `intaglio
            export` takes.
        weights: from what ``make`` returns, each quantized weight in float32 by its name in a checkpoint that is not
            quantized, as the format's own library, or another reader than intaglio's, dequantizes it.
        requires: a module without which the case is skipped.
        adapters: from what ``make`` returns, the adapters that are merged into it.
        tasks: the tasks for which the format is published.
    """

    format: str
    variant: str
    made_by: str
    make: Callable[[Path, str], Path]
    weights: Callable[[Path], Mapping[str, Tensor]]
    requires: str | None = None
    adapters: Callable[[Path], tuple[Path, ...]] | None = None
    tasks: tuple[str, ...] = ("text-generation",)
