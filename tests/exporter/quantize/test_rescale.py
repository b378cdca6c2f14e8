"""Scales folded into a checkpoint: the function stays the same, and so does a tensor in every way of reading it."""

from pathlib import Path

import pytest
import torch
from intaglio.exporter.quantize.layers.stream import LayerStream
from intaglio.exporter.quantize.methods.rescale import Carrier, Folding, RescaledCheckpoint, carrier_of
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.loading.parameters import load_module
from intaglio.tests import tiny
from torch import Tensor

STAGES = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}


def opened(folder: Path, family: str, *, tied: bool = True, dtype: torch.dtype = torch.float32) -> Checkpoint:
    return Checkpoint(tiny.write(folder, tiny.config(family, tie_word_embeddings=tied), dtype=dtype))


def every_fold(checkpoint: Checkpoint) -> list[Folding]:
    """Return scales between 1/4 and 4 for every stage of the model that has a carrier."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for layer in range(checkpoint.config.num_hidden_layers):
        for stage in STAGES.values():
            carrier = carrier_of(checkpoint, layer, stage)
            if carrier is not None:
                width = checkpoint.tensors[carrier.divided[0]].shape[0]
                found.append(Folding(carrier, torch.exp2(4 * torch.rand(width, generator=generator) - 2)))
    return found


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
def test_the_model_stays_the_same(family: str, tied: bool, tmp_path: Path) -> None:
    checkpoint = opened(tmp_path / "model", family, tied=tied)
    folded = every_fold(checkpoint)
    assert len(folded) == 4 * (4 if family == "qwen2" else 2)
    rescaled = RescaledCheckpoint(checkpoint, folded)
    ids = torch.randint(3, 288, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = (load_module(source)(ids).logits for source in (checkpoint, rescaled))
    assert (found - expected).abs().max() < 2e-5 * expected.abs().max()


@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
def test_a_stage_sees_its_inputs_divided(family: str, tmp_path: Path) -> None:
    checkpoint = opened(tmp_path / "model", family)
    folded = {fold.carrier.multiplied: fold for fold in every_fold(checkpoint)}
    windows = torch.randint(3, 288, (1, 16), generator=torch.Generator().manual_seed(0))
    before, after = (
        LayerStream(checkpoint, windows),
        LayerStream(RescaledCheckpoint(checkpoint, folded.values()), windows),
    )
    seen = 0
    layer, other = before.load(0), after.load(0)
    for stage, same in zip(before.stages(layer), after.stages(other), strict=True):
        fold = folded.get(tuple(f"model.layers.0.{name}.weight" for name in stage.names))
        scales = torch.ones(()) if fold is None else fold.carrier.spread(fold.scales)
        expected, found = (
            torch.cat([i.rows for i in s.inputs(m, g)]) for s, m, g in ((before, layer, stage), (after, other, same))
        )
        assert (found * scales - expected).norm() < 0.02 * expected.norm()  # streams may multiply in bfloat16
        seen += fold is not None
    assert seen == (4 if family == "qwen2" else 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ranges_agree_with_the_whole(dtype: torch.dtype, tmp_path: Path) -> None:
    checkpoint = opened(tmp_path / "model", "qwen2", dtype=dtype)
    rescaled = RescaledCheckpoint(checkpoint, every_fold(checkpoint))
    for name in ("model.layers.1.self_attn.v_proj.weight", "model.layers.1.mlp.up_proj.weight"):
        whole = rescaled.tensor(name)
        assert whole.dtype == torch.float32
        assert not torch.equal(whole, checkpoint.tensor(name).float())
        pieces = list(rescaled.rows(name, chunk_bytes=1000))
        assert len(pieces) > 3
        assert torch.equal(torch.cat([piece for _, piece in pieces]), whole)
        assert torch.equal(rescaled.columns(name, 5, 17), whole[:, 5:17])


def test_other_tensors_are_read_as_stored(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path / "model", "exaone4", dtype=torch.bfloat16)
    rescaled = RescaledCheckpoint(checkpoint, every_fold(checkpoint))
    for name in ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"):
        assert rescaled.tensors[name] == checkpoint.tensors[name]
        assert torch.equal(rescaled.tensor(name), checkpoint.tensor(name))


@pytest.mark.parametrize("stage", ["qkv", "gate_up"])
def test_a_post_norm_block_has_no_carrier_for_the_residual_stream(stage: str, tmp_path: Path) -> None:
    assert carrier_of(opened(tmp_path / "model", "exaone4"), 0, STAGES[stage]) is None


def test_query_heads_of_a_group_share_their_value_head(tmp_path: Path) -> None:
    carrier = carrier_of(opened(tmp_path / "model", "qwen2"), 2, STAGES["o"])
    assert carrier is not None
    assert carrier.divided == ("model.layers.2.self_attn.v_proj.weight", "model.layers.2.self_attn.v_proj.bias")
    heads = torch.arange(32.0).view(2, 16)  # 2 value heads of 16 feed 4 query heads
    assert torch.equal(carrier.spread(heads.flatten()).view(4, 16), heads[[0, 0, 1, 1]])
    columns = torch.arange(64.0).view(4, 16)
    assert torch.equal(carrier.gather(columns.flatten()).view(2, 16), columns[[1, 3]])


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_invalid_scales_raise_an_assertion_error(bad: float, tmp_path: Path) -> None:
    checkpoint = opened(tmp_path / "model", "qwen2")
    carrier = Carrier(("model.norm.weight",), ())
    scales: Tensor = torch.ones(64)
    scales[3] = bad
    with pytest.raises(AssertionError, match="scales of"):
        RescaledCheckpoint(checkpoint, [Folding(carrier, scales)])
