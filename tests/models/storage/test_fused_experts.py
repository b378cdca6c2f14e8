"""Experts in one tensor of a layer, as transformers saves them on request, are read one by one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.errors import CheckpointError, IntaglioError, UnsupportedError
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.storage.fused_experts import NOTE
from intaglio.tests import tiny
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM

VALUES = tiny.config("qwen2_moe", mlp_only_layers=[])
LAYER = "model.layers.1.mlp.experts"
GATE_UP, DOWN = f"{LAYER}.gate_up_proj", f"{LAYER}.down_proj"
FILE = "model.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint, and what transformers makes of it in the layout of its modules."""
    base = tmp_path_factory.mktemp("fused")
    plain = tiny.write(base / "plain", VALUES)
    model: Any = AutoModelForCausalLM.from_pretrained(plain)
    model.save_pretrained(base / "fused", save_original_format=False)
    model.save_pretrained(base / "default")
    assert load_file(base / "default" / FILE).keys() == load_file(plain / FILE).keys()
    assert load_file(base / "fused" / FILE)[GATE_UP].shape == (6, 2 * 32, 64)
    return plain, base / "fused"


def test_every_tensor_is_that_of_the_checkpoint(folders: tuple[Path, Path]) -> None:
    plain, fused = (Checkpoint(folder) for folder in folders)
    assert fused.tensors.keys() == plain.tensors.keys()
    assert fused.config == plain.config
    assert (fused.notes, plain.notes) == ((NOTE,), ())
    for name, info in plain.tensors.items():
        assert fused.tensors[name].shape == info.shape
        assert torch.equal(fused.tensor(name), plain.tensor(name)), name
        if len(info.shape) == 2:
            assert torch.equal(fused.columns(name, 3, 17), plain.columns(name, 3, 17))
            parts = list(fused.rows(name, chunk_bytes=1000))
            assert torch.equal(torch.cat([rows for _, rows in parts]), plain.tensor(name))
    assert fused.load() is not None


def test_a_bare_model_is_read_too(folders: tuple[Path, Path], tmp_path: Path) -> None:
    model: Any = AutoModel.from_pretrained(folders[0])
    model.save_pretrained(tmp_path, save_original_format=False)
    found = Checkpoint(tmp_path)
    assert found.task == "feature-extraction"
    name = "layers.1.mlp.experts.4.up_proj.weight"
    assert torch.equal(found.tensor(name), Checkpoint(folders[0]).tensor(f"model.{name}"))
    assert found.load() is not None


def changed(folder: Path, tmp_path: Path, tensors: Mapping[str, Tensor]) -> Checkpoint:
    return Checkpoint(tiny.write(tmp_path, VALUES, tensors={**load_file(folder / FILE), **tensors}))


REFUSED: dict[str, tuple[dict[str, Tensor], type[IntaglioError], str]] = {
    "transposed": (
        {DOWN: torch.zeros(6, 32, 64)},
        UnsupportedError,
        r"model\.safetensors: tensor model\.layers\.1\.mlp\.experts\.down_proj has the shape \[6, 32, 64\]: the "
        r"experts are transposed, and \[6, 64, 32\] is read; load the model with transformers, and save it with save_",
    ),
    "another number": (
        {GATE_UP: torch.zeros(5, 64, 64)},
        CheckpointError,
        r"gate_up_proj has the shape \[5, 64, 64\], expected \[6, 64, 64\] from config\.json; the config and",
    ),
    "a matrix": (
        {DOWN: torch.zeros(64, 32)},
        CheckpointError,
        r"down_proj has the shape \[64, 32\], expected \[6, 64, 32\] from config\.json",
    ),
    "twice": (
        {f"{LAYER}.2.up_proj.weight": torch.zeros(32, 64)},
        CheckpointError,
        r"experts\.gate_up_proj holds all experts of its layer, and model\.layers\.1\.mlp\.experts\.2\.up_proj\.weight "
        r"is there too; remove the one that does not count",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_layouts_are_refused(folders: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    tensors, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        changed(folders[1], tmp_path, tensors)


def test_quantized_tensors_of_all_experts_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    tiny.write(tmp_path, VALUES)
    tensors = load_file(folders[1] / FILE)
    save_file({**tensors, GATE_UP: tensors[GATE_UP].to(torch.float8_e4m3fn)}, tmp_path / FILE)
    message = r"gate_up_proj holds all experts of its layer as F8_E4M3; supported are F32, F16, BF16, F64: use the"
    with pytest.raises(UnsupportedError, match=message):
        Checkpoint(tmp_path)


def test_a_model_without_experts_has_no_place_for_them(folders: tuple[Path, Path], tmp_path: Path) -> None:
    values = tiny.config("qwen2_moe", num_experts=0)
    found = Checkpoint(tiny.write(tmp_path, values, tensors={**tiny.weights(values), DOWN: torch.zeros(6, 64, 32)}))
    with pytest.raises(CheckpointError, match=r"has no place for 1 of its tensors, first model\.layers\.1\.mlp"):
        found.load()
