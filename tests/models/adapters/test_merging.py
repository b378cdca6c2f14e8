"""What is merged where: tied embeddings, quantized bases, other dtypes, and the memory that it takes."""

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.errors import CheckpointError, UnsupportedError
from intaglio.exporter import export
from intaglio.models.adapters import change, terms
from intaglio.models.adapters.given import Adapter
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests import tiny
from intaglio.tests.models.adapters import by_hand, peft_maker
from intaglio.tests.models.adapters.by_hand import matrices, noise, opened, write
from safetensors.torch import save_file

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
IDS = torch.tensor([[5, 9, 200, 31, 7, 3]])
NAME = "model.layers.0.self_attn.q_proj.weight"

TIED: dict[str, tuple[dict[str, Any], bool]] = {
    "the head": ({"target_modules": ["q_proj", "lm_head"]}, False),
    "the embedding": ({"target_modules": ["q_proj", "embed_tokens"]}, False),
    "both": ({"target_modules": ["embed_tokens", "lm_head"]}, False),
    "rows": ({"target_modules": ["q_proj"], "trainable_token_indices": [3, 7]}, True),
    "a whole head": ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, False),
    "both, whole": ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]}, False),
    "neither": ({"target_modules": ["q_proj"]}, True),
    "kept tied": ({"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True}, True),
}


@pytest.mark.parametrize("case", TIED)
@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
def test_tied_embeddings_compute_what_the_trained_model_computes(tmp_path: Path, family: str, case: str) -> None:
    """peft's own merge in place changes the embedding with the head, and warns of it: its unmerged model counts."""
    peft = pytest.importorskip("peft")
    settings, stays = TIED[case]
    base = tiny.write(tmp_path / "base", tiny.config(family, tie_word_embeddings=True))
    config = peft.LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", **settings)
    adapter = peft_maker.write(tmp_path / "adapter", base, config)
    checkpoint = opened(base, adapter)
    assert checkpoint.config.tie_word_embeddings is stays
    assert (HEAD in checkpoint.tensors) is not stays
    noted = any(note.startswith("the LM head is the embedding in the base, and with the") for note in checkpoint.notes)
    assert noted is not stays
    expected = peft_maker.logits(peft_maker.with_adapter(peft_maker.model(base), adapter), IDS)
    with torch.no_grad():
        found = checkpoint.load()(IDS).logits
    assert (found - expected).abs().max() < 2e-4


def test_a_quantized_base(tmp_path: Path) -> None:
    """What an adapter changes is float32; as it is, the model is refused with the way on."""
    from intaglio.tests.inputs.formats import gptq

    case = gptq.CASES[0]
    (tmp_path / "base").mkdir()
    base = case.make(tmp_path / "base", "qwen2")
    plain = Checkpoint(base)
    rows, columns = plain.tensors[NAME].shape
    adapter = write(tmp_path / "adapter", matrices(rows=rows, columns=columns))
    checkpoint = opened(base, adapter)
    assert checkpoint.merged_quantized == (NAME,)
    assert set(plain.quantized) - set(checkpoint.quantized) == {NAME}
    given = matrices(rows=rows, columns=columns)
    change = 2.0 * given[f"{by_hand.Q_PROJ}.lora_B.weight"] @ given[f"{by_hand.Q_PROJ}.lora_A.weight"]
    torch.testing.assert_close(checkpoint.tensor(NAME), plain.tensor(NAME) + change, rtol=1e-6, atol=1e-6)
    message = (
        r"the adapters change 1 weights that are stored quantized, first model\.layers\.0\.self_attn\.q_proj\.weight"
    )
    with pytest.raises(UnsupportedError, match=message):
        export(base, tmp_path / "out", adapters=[adapter])
    assert not (tmp_path / "out").exists()
    assert export(base, tmp_path / "out", adapters=[adapter], precision="fp32").precision == "fp32"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_of_16_bits_is_merged_in_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    """Nothing is rounded to the base's dtype: the sum is rounded once, to the precision of the export."""
    base = tiny.write(tmp_path / "base", tiny.config("qwen2"), dtype=dtype)
    adapter = write(tmp_path / "adapter", {name: tensor.to(dtype) for name, tensor in matrices().items()})
    left, right = (matrices()[f"{by_hand.Q_PROJ}.lora_{part}.weight"].to(dtype).double() for part in "BA")
    expected = Checkpoint(base).tensor(NAME).double() + 2.0 * left @ right
    checkpoint = opened(base, adapter)
    assert torch.equal(checkpoint.tensor(NAME), expected.float())
    assert checkpoint.tensors[NAME].dtype == "F32"
    assert checkpoint.tensor(EMBED).dtype == dtype


def test_ranges_of_a_large_weight_equal_the_whole(tmp_path: Path) -> None:
    """Larger than a tile, with edges inside of tiles: parts are bit for bit those of the whole."""
    values = tiny.config("qwen2", hidden_size=704, intermediate_size=1320, num_hidden_layers=1)
    base = tiny.write(tmp_path / "base", values)
    module = "base_model.model.model.layers.0.mlp.up_proj"
    tensors = {**matrices(module, 24, 1320, 704), f"{module}.lora_magnitude_vector": noise(1320).abs() + 0.5}
    targets = r"model\.layers\.0\.mlp\.up_proj"
    for settings in ({"use_dora": True}, {}):
        kept = tensors if settings else {name: tensor for name, tensor in tensors.items() if "magnitude" not in name}
        folder = tmp_path / f"adapter{len(settings)}"
        checkpoint = opened(base, write(folder, kept, r=24, target_modules=targets, **settings))
        name = "model.layers.0.mlp.up_proj.weight"
        whole = checkpoint.tensor(name)
        for rows in (1, 100, 257, 1000):
            parts = [part for _, part in checkpoint.rows(name, chunk_bytes=rows * 704 * 4)]
            assert torch.equal(torch.cat(parts), whole)
        for start, stop in ((0, 1), (255, 257), (300, 704), (511, 513)):
            assert torch.equal(checkpoint.columns(name, start, stop), whole[:, start:stop])


def test_a_range_takes_the_memory_of_a_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No product is ever computed for more than a strip, nor read for more rows than are asked for."""
    values = tiny.config("qwen2", vocab_size=20_000, hidden_size=64, num_hidden_layers=1)
    base = tiny.write(tmp_path / "base", values)
    module = "base_model.model.lm_head"
    adapter = write(tmp_path / "adapter", matrices(module, 4, 20_000, 64), target_modules=["lm_head"])
    checkpoint = opened(base, adapter)
    asked: list[int] = []
    part = terms.LowRank.part

    def counted(self: terms.LowRank, rows: range, columns: range) -> torch.Tensor:
        asked.append(len(rows) * len(columns))
        return part(self, rows, columns)

    monkeypatch.setattr(terms.LowRank, "part", counted)
    monkeypatch.setattr(change, "STRIP_BYTES", 1 << 18)
    whole = sum(len(rows) for _, rows in checkpoint.rows(HEAD, chunk_bytes=1 << 20))
    assert whole == 20_000
    assert max(asked) * 8 <= 1 << 18
    assert sum(asked) == 20_000 * 64
    tracemalloc.start()
    opened(base, adapter)
    assert tracemalloc.get_traced_memory()[1] < 1 << 21  # headers only
    tracemalloc.stop()


def test_adapters_over_embeddings_of_an_encoder(tmp_path: Path) -> None:
    """An adapter of the bare model has no prefix in its names, and the base keeps its LM head to itself."""
    base = tiny.write(tmp_path / "base", tiny.config("qwen2"))
    tensors = matrices("base_model.model.layers.0.self_attn.q_proj")
    targets = r"layers\.0\.self_attn\.q_proj"
    adapter = write(tmp_path / "adapter", tensors, task_type="FEATURE_EXTRACTION", target_modules=targets)
    checkpoint = opened(base, adapter)
    assert checkpoint.task == "feature-extraction"
    usual = opened(base, write(tmp_path / "usual"))
    assert torch.equal(checkpoint.tensor(NAME), usual.tensor(NAME))
    assert export(base, tmp_path / "out", adapters=[Adapter(adapter)]).task == "feature-extraction"


def test_a_resized_vocabulary_without_its_head(tmp_path: Path) -> None:
    base = tiny.write(tmp_path / "base", tiny.config("qwen2"))
    tensors = {**matrices(), "base_model.model.model.embed_tokens.weight": noise(300, 64)}
    with pytest.raises(CheckpointError, match=r"the embedding has 300 rows with the adapter, and the LM head 288"):
        opened(base, write(tmp_path / "adapter", tensors))


def test_an_adapter_beside_its_base_is_merged_on_request(tmp_path: Path) -> None:
    base = write(tiny.write(tmp_path / "base", tiny.config("qwen2")))
    save_file(matrices(), base / "adapter_model.safetensors")
    checkpoint = opened(base, base)
    assert checkpoint.adapter is None
    assert not torch.equal(checkpoint.tensor(NAME), tiny.weights(tiny.config("qwen2"))[NAME])
