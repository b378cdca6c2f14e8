"""Artifacts with the codes of a quantized checkpoint, each exported once for many tests."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from intaglio.exporter import QuantizeOptions, export
from intaglio.tests.exporter.stored.grids import EVERY, Kind, Weight, by_end, install
from intaglio.tests.exporter.stored.test_carried import write

from ..artifacts import Pair

GPTQ = "GPTQ, 4 bits"


@dataclass(frozen=True)
class Carried:
    """A checkpoint whose matrices are random codes of a kind, and how it is exported: with float activations where the
    target is ort."""

    kind: Kind
    target: str = "ort"
    family: str = "qwen2"
    tied: bool = False


ZEROS = Carried(Kind(zeros="any"))
SYMMETRIC = Carried(Kind(block_size=16))
STANDARD = Carried(Kind(zeros="any"), "standard", "exaone4")
ORDERED = Carried(Kind(zeros="any", ordered=True))
ORDERED_STANDARD = Carried(Kind(zeros="any", ordered=True), "standard")
OFFSETS = Carried(Kind(zeros="least", offsets="any"), family="exaone4")
OFFSETS_STANDARD = Carried(Kind(zeros="least", offsets="any"), "standard", tied=True)
ORDERED_OFFSETS = Carried(Kind(zeros="least", offsets="any", ordered=True))
FIVE_BITS = Carried(Kind(5, zeros="least"))


class Shelf:
    """Makes artifacts under one folder, and keeps them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[Carried, Pair] = {}

    def copy(self, carried: Carried, out: Path) -> Pair:
        """Return a copy of the sound artifact, to be damaged."""
        if carried not in self._made:
            place = self.folder / str(len(self._made))
            source = write(place / "checkpoint", carried.family, tie_word_embeddings=carried.tied)
            options = QuantizeOptions(accuracy_level=0) if carried.target == "ort" else None
            with opened(carried):
                export(source, place / "out", target=carried.target, options=options)  # type: ignore[arg-type]
            self._made[carried] = Pair(place / "out", source)
        shutil.copytree(self._made[carried].artifact, out)
        return Pair(out, self._made[carried].checkpoint)


def _as_gptq(name: str, weight: Weight) -> Weight:
    return replace(weight, format=GPTQ)


@contextmanager
def opened(carried: Carried, change: Callable[[str, Weight], Weight] = _as_gptq) -> Iterator[None]:
    """Let checkpoints that are opened have quantized weights of the kind."""
    with pytest.MonkeyPatch.context() as patch:
        install(patch, by_end(dict.fromkeys(EVERY, carried.kind)), change)
        yield
