"""Each planted fault bites, in the ways of running that it should and in no other; the manifest does not tell."""

from pathlib import Path

import pytest
from intaglio.artifact import read_manifest, verify

from .artifacts import Shelf
from .bite import answers, differing
from .fault import Fault
from .faults import FAULTS
from .surgery import Surgery

NOISE = 1e-5
BITE = 1e-3
"""A fault must show by a hundred times what runs of the same graph differ by."""


def marked(fault: Fault) -> object:
    return pytest.param(fault, id=fault.name, marks=[pytest.mark.slow] if fault.slow else [])


@pytest.mark.parametrize("fault", [marked(fault) for fault in FAULTS])
def test_bites(fault: Fault, shelf: Shelf, tmp_path: Path) -> None:
    pair = shelf.copy(fault.base, tmp_path / "planted")
    with Surgery(pair.artifact) as surgery:
        fault.plant(surgery)
    assert verify(pair.artifact) == []
    manifest, sound = read_manifest(pair.artifact), read_manifest(shelf.pair(fault.base).artifact)
    assert (manifest.source, manifest.precision) == (sound.source, sound.precision)
    right, wrong = answers(shelf.pair(fault.base).artifact), answers(pair.artifact)
    shows = fault.shows & right.keys()
    assert differing(right, wrong, BITE) == shows
    assert differing(right, wrong, NOISE) == shows


def test_names_are_told_apart() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
