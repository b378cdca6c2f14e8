"""The audit of codes that were carried over: sound artifacts have no fault, and each fault is named with its cause."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from intaglio.artifact import read_manifest
from intaglio.exporter import QuantizeOptions, export
from intaglio.models.checkpoint import Checkpoint
from intaglio.parity.audit import audit
from intaglio.parity.audit.carried.moved import AWQ_ORDER
from intaglio.tests.exporter.stored.grids import Kind, Weight
from intaglio.tests.exporter.stored.test_carried import write

from ..faults.artifact_editor import Array, ArtifactEditor
from ..faults.edits import carried as edits
from ..faults.edits import weights
from ..faults.edits.attention import Edit
from . import carried
from .carried import Carried, Shelf, opened

LAYER = "model.layers.0."
UP, GATE, OUT = f"{LAYER}mlp.up_proj", f"{LAYER}mlp.gate_proj", f"{LAYER}self_attn.o_proj"
DOWN, EMBEDDING = f"{LAYER}mlp.down_proj", "model.embed_tokens"
PACKED = np.array(AWQ_ORDER)


@dataclass(frozen=True)
class CarriedFault:
    """An edit after which the codes of ``tensors`` have a fault that matches ``words``, and no others have any."""

    name: str
    base: Carried
    edit: Edit
    words: str
    tensors: tuple[str, ...] = (UP,)


def one_code(name: str) -> Edit:
    def change(codes: Array) -> Array:
        codes[3, 5] ^= 4
        return codes

    return edits.recoded(name, change)


FAULTS = [
    CarriedFault(
        "one code",
        carried.ZEROS,
        one_code(UP),
        r"^1 of its [\d,]+ codes are not the checkpoint's, the first in row 3 of \S+up_proj.weight, column 5: "
        r"[+-]\d+ steps from zero, and the checkpoint has [+-]\d+$",
    ),
    CarriedFault(
        "nibbles", carried.ZEROS, weights.nibbles_swapped(UP), "the halves of its bytes are in the wrong order"
    ),
    CarriedFault(
        "zero points less one",
        carried.ZEROS,
        edits.zero_points_lowered(UP),
        r"zero point is off by -1 in [\d,]+ of its [\d,]+ blocks: GPTQ's first format stores zero points less one, and "
        "the one was not added",
    ),
    CarriedFault(
        "zero points and one, standard",
        carried.STANDARD,
        weights.zero_points_raised(UP),
        r"zero point is off by \+1 in .*was added to a file that stores them whole \(v2\)",
    ),
    CarriedFault(
        "scales of another group",
        carried.ZEROS,
        weights.rewritten(f"{UP}.scales", lambda scales: np.roll(scales, 1, 1)),
        "scales are those of the group (before|after)",
    ),
    CarriedFault(
        "scales of another row",
        carried.SYMMETRIC,
        weights.rewritten(f"{UP}.scales", lambda scales: np.roll(scales, 1, 0)),
        "scales are those of the row before",
    ),
    CarriedFault(
        "scales by columns",
        carried.SYMMETRIC,
        weights.scales_out_of_order(UP),
        "scales are stored by columns and read by rows",
    ),
    CarriedFault(
        "one scale",
        carried.ZEROS,
        weights.sign_flipped(UP, 5, 1),
        r"sign of the scales is flipped; 1 of its [\d,]+ scales are not the checkpoint's, the first in row 5 of \S+, "
        "columns 32 to 63",
    ),
    CarriedFault(
        "scales of another tensor",
        carried.ZEROS,
        weights.copied(f"{GATE}.scales", f"{UP}.scales"),
        f"scales are those of {GATE}.weight",
    ),
    CarriedFault(
        "codes of another tensor",
        carried.ZEROS,
        weights.copied(f"{GATE}.codes", f"{UP}.codes"),
        f"its codes are those of {GATE}.weight",
    ),
    CarriedFault(
        "codes of other rows",
        carried.SYMMETRIC,
        edits.recoded(UP, lambda codes: np.roll(codes, 1, 0)),
        "its rows are in a different order: row 0 has the codes of row",
    ),
    CarriedFault(
        "AWQ's packing",
        carried.SYMMETRIC,
        edits.recoded(UP, lambda codes: codes.reshape(-1, 8, codes.shape[1])[:, PACKED].reshape(codes.shape)),
        "each eight rows are in the order in which AWQ packs them",
    ),
    CarriedFault(
        "transposed",
        carried.SYMMETRIC,
        edits.recoded(OUT, lambda codes: codes.T.copy()),
        "its codes are the checkpoint's transposed",
        (OUT,),
    ),
    CarriedFault(
        "signed codes",
        carried.SYMMETRIC,
        edits.recoded(UP, lambda codes: codes ^ 8),
        "the highest bit of its codes is flipped",
    ),
    CarriedFault(
        "zeroed", carried.SYMMETRIC, edits.recoded(UP, lambda codes: codes * 0), "all zeros|all of its codes are 0"
    ),
    CarriedFault(
        "codes of five bits, less one",
        carried.FIVE_BITS,
        weights.rewritten(f"{UP}.codes", lambda codes: codes - 1),
        r"zero point is off by \+1",
    ),
    CarriedFault(
        "not gathered",
        carried.ORDERED,
        edits.not_gathered(UP),
        r"sorted by group \(act-order\), and the graph does not gather the activations in that order",
    ),
    CarriedFault(
        "not gathered, standard",
        carried.ORDERED_STANDARD,
        edits.not_gathered(DOWN),
        r"sorted by group \(act-order\), and the graph does not gather the activations in that order",
        (DOWN,),
    ),
    CarriedFault(
        "inverse order",
        carried.ORDERED,
        weights.rewritten(f"{OUT}.order", np.argsort),
        "order of the activations is inverted",
        (OUT,),
    ),
    CarriedFault(
        "another order",
        carried.ORDERED,
        weights.rewritten(f"{OUT}.order", lambda order: np.roll(order, 1)),
        r"gathered in another order than the checkpoint's: column 0 is multiplied by input \d+, and it is that of",
        (OUT,),
    ),
    CarriedFault(
        "not a permutation",
        carried.ORDERED,
        weights.rewritten(f"{OUT}.order", lambda order: order * 0),
        "gathers other activations than each of its 64 inputs once",
        (OUT,),
    ),
    CarriedFault(
        "not sorted",
        carried.ORDERED,
        edits.unsorted(OUT, f"{OUT}.order"),
        r"not sorted by group \(act-order\), and the activations are",
        (OUT,),
    ),
    CarriedFault(
        "embedding's order",
        carried.ORDERED,
        weights.rewritten(f"{EMBEDDING}.inverse_order", np.argsort),
        "order of the activations is inverted",
        (EMBEDDING,),
    ),
    CarriedFault("offsets left out", carried.OFFSETS, edits.without_offsets(DOWN), "the graph has no offsets", (DOWN,)),
    CarriedFault(
        "offsets negated",
        carried.OFFSETS,
        weights.rewritten(f"{DOWN}.offsets", lambda offsets: -offsets),
        "the sign of the offsets is flipped",
        (DOWN,),
    ),
    CarriedFault(
        "offsets of other activations",
        carried.ORDERED_OFFSETS,
        edits.sums_of_others(DOWN),
        "multiplies block sums of other activations by the offsets",
        (DOWN,),
    ),
    CarriedFault(
        "offsets of the embedding",
        carried.OFFSETS,
        weights.rewritten(f"{EMBEDDING}.offsets", lambda offsets: np.roll(offsets, 1, 0)),
        "the offsets are those of the row before",
        (EMBEDDING,),
    ),
    CarriedFault(
        "offsets of the embedding, standard",
        carried.OFFSETS_STANDARD,
        weights.rewritten(f"{EMBEDDING}.offsets", lambda offsets: offsets * 2),
        "the offsets are 2 times the checkpoint's",
        (EMBEDDING,),
    ),
]


@pytest.fixture(scope="module")
def carried_shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("carried"))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_named(fault: CarriedFault, carried_shelf: Shelf, tmp_path: Path) -> None:
    pair = carried_shelf.copy(fault.base, tmp_path / "out")
    with ArtifactEditor(pair.artifact) as editor:
        fault.edit(editor)
    with opened(fault.base):
        errors = audit(pair.artifact, read_manifest(pair.artifact), Checkpoint(pair.checkpoint))
    reported = {error.name.removesuffix(".codes"): error.fault for error in errors if error.fault is not None}
    assert set(reported) == set(fault.tensors), reported
    for name in fault.tensors:
        assert re.search(fault.words, reported[name] or ""), reported


SOUND = {name: value for name, value in vars(carried).items() if isinstance(value, Carried)} | {
    "two bits": Carried(Kind(2, 16, zeros="any"), "standard"),
    "a row of 8 bits, tied": Carried(Kind(8, 1 << 20, scales="single"), tied=True),
    "offsets that are multiples": Carried(Kind(zeros="least", offsets="multiples"), tied=True),
    "order and offsets, standard": Carried(
        Kind(zeros="least", offsets="any", ordered=True), "standard", "exaone4", True
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_no_false_alarm(name: str, carried_shelf: Shelf, tmp_path: Path) -> None:
    """Every weight in codes is called exact, whatever its layout."""
    pair = carried_shelf.copy(SOUND[name], tmp_path / "out")
    with opened(SOUND[name]):
        errors = audit(pair.artifact, read_manifest(pair.artifact), Checkpoint(pair.checkpoint))
    assert [(error.name, error.fault) for error in errors if error.fault is not None] == []
    assert {error.exact for error in errors if error.method == "stored"} == {True}
    assert {error.error for error in errors} == {0.0}


def test_scales_rounded_to_float16_are_counted(tmp_path: Path) -> None:
    """With float16 activations, the operator takes scales of that type."""
    base = Carried(Kind(zeros="any", scales="single"))
    source = write(tmp_path / "checkpoint", "qwen2")
    with opened(base):
        manifest = export(source, tmp_path / "out", options=QuantizeOptions(activations="fp16"))
        errors = audit(tmp_path / "out", manifest, Checkpoint(source))
    assert [(error.name, error.fault) for error in errors if error.fault is not None] == []
    assert {error.exact for error in errors if error.method == "stored"} == {False}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weight: replace(weight, has_grid=False), "the manifest says that it holds the checkpoint's own codes"),
        (
            lambda weight: replace(weight, whole=replace(weight.whole, all_codes=weight.whole.all_codes.flip(0))),
            "its rows are in a different order",
        ),
    ],
    ids=["no codes", "other codes"],
)
def test_another_checkpoint(
    change: Callable[[Weight], Weight], words: str, carried_shelf: Shelf, tmp_path: Path
) -> None:
    """The checkpoint is what counts, not the manifest."""
    pair = carried_shelf.copy(carried.SYMMETRIC, tmp_path / "out")
    with opened(carried.SYMMETRIC, lambda name, weight: change(weight) if "up_proj" in name else weight):
        errors = audit(pair.artifact, read_manifest(pair.artifact), Checkpoint(pair.checkpoint))
    (fault,) = [error.fault for error in errors if error.fault is not None]
    assert fault is not None
    assert words in fault
