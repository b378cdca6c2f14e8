"""Mixtures of experts in GGUF files: each expert's matrix is a tensor of its own, and is read without the others."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.errors import CheckpointError, UnsupportedError
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.gguf import weights
from intaglio.models.gguf.header import StoredTensor, read_header
from intaglio.models.gguf.weights import read_bytes
from intaglio.tests import tiny
from safetensors.torch import load_file
from torch import Tensor, nn

from . import make

TRAINED = Path(tiny.__file__).parent / "checkpoints" / "tiny-qwen2-moe"
FAMILY = "qwen2_moe"
EXPERT = "model.layers.0.mlp.experts.1.down_proj.weight"


def opened(tmp_path: Path, type_name: str = "F32", **options: Any) -> Checkpoint:
    return Checkpoint(make.write(tmp_path / "tiny.gguf", make.config(FAMILY), type_name, **options))


@pytest.mark.parametrize("type_name", ["Q8_0", "Q4_K", "Q6_K", "F16", "BF16"])
def test_each_expert_has_the_numbers_that_gguf_py_reads(type_name: str, tmp_path: Path) -> None:
    found = opened(tmp_path, type_name)
    expected = make.read_values(tmp_path / "tiny.gguf")
    assert found.quantized.keys() == expected.keys()
    assert (EXPERT in expected) == (type_name[0] == "Q")
    assert all(torch.equal(found.tensor(name), tensor) for name, tensor in expected.items())
    source = tiny.weights(make.config(FAMILY))
    assert found.tensors.keys() == source.keys()
    for name, tensor in source.items():
        assert found.tensors[name].shape == tuple(tensor.shape)
        assert torch.allclose(found.tensor(name).float(), tensor, atol=0.15), name


@pytest.mark.parametrize("missing", [False, True], ids=["", "sizes-missing"])
def test_the_config_is_that_of_the_checkpoint(missing: bool, tmp_path: Path) -> None:
    """Files of before June 2024 lack the sizes of the experts, which are those of feed_forward_length then."""
    sizes = ("expert_feed_forward_length", "expert_shared_feed_forward_length")
    metadata = dict.fromkeys((f"qwen2moe.{key}" for key in sizes), None) if missing else {}
    found = opened(tmp_path, metadata=metadata)
    plain = Checkpoint(tiny.write(tmp_path / "plain", make.config(FAMILY))).config
    assert plain.experts is not None
    config = replace(found.config, experts=replace(found.config.experts or plain.experts, loss_factor=0.01))
    assert config == plain
    assert (found.architecture, found.task, found.notes) == ("Qwen2MoeForCausalLM", "text-generation", ())


def test_a_file_without_biases_has_none(tmp_path: Path) -> None:
    values = make.config(FAMILY, qkv_bias=False)
    found = Checkpoint(make.write(tmp_path / "tiny.gguf", values))
    assert not found.config.attention_bias
    assert found.load() is not None


def trained(path: Path, type_name: str) -> Checkpoint:
    """Write the trained checkpoint as a file; the head is stored, as llama.cpp needs it."""
    tensors: Mapping[str, Tensor] = load_file(TRAINED / "model.safetensors")
    config = json.loads((TRAINED / "config.json").read_text(encoding="utf-8"))
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": config["rope_theta"]}
    whole = {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}
    return Checkpoint(make.write(path, config, type_name, tensors=whole, tokenizer=False))


TOKENS = torch.tensor([[5, 900, 77, 1203, 8, 2048, 31, 6]])


def logits(module: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = module(TOKENS).logits
    return found


def test_logits_are_those_of_the_trained_checkpoint(tmp_path: Path) -> None:
    expected = logits(Checkpoint(TRAINED).load())
    assert torch.equal(logits(trained(tmp_path / "bf16.gguf", "BF16").load()), expected)


@pytest.mark.parametrize("type_name", ["Q8_0", "Q4_0"])
def test_quantized_logits_are_those_of_the_numbers_that_gguf_py_reads(type_name: str, tmp_path: Path) -> None:
    found = trained(tmp_path / "tiny.gguf", type_name)
    module = Checkpoint(TRAINED).load()
    before = logits(module)
    values = make.read_values(tmp_path / "tiny.gguf")
    assert not module.load_state_dict(values, strict=False).unexpected_keys
    expected = logits(module)
    assert torch.equal(logits(found.load()), expected)
    assert not torch.equal(before, expected)


def test_one_expert_is_read_without_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = opened(tmp_path, "Q8_0")
    stored = read_header(tmp_path / "tiny.gguf").tensors["blk.0.ffn_down_exps.weight"]
    asked: list[tuple[int, int]] = []

    def noted(tensor: StoredTensor, *arguments: Any) -> Any:
        data = read_bytes(tensor, *arguments)
        asked.append((tensor.offset, data.nbytes))
        return data

    monkeypatch.setattr(weights, "read_bytes", noted)
    found.tensor(EXPERT)
    size = stored.nbytes // 3
    assert asked == [(stored.offset + size, size)]


DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "another number of experts": (
        {"qwen2moe.expert_count": 4},
        r"tiny\.gguf: tensor blk\.0\.ffn_gate_exps\.weight has the shape \[3, 256, 256\], and expert_count is 4: "
        r"expected \[4, rows, columns\]; fetch the file again",
    ),
    "no number of experts": (
        {"qwen2moe.expert_count": None},
        r"tiny\.gguf: qwen2moe\.expert_count is missing, expected a whole number; fetch the file again",
    ),
    "no number of chosen experts": (
        {"qwen2moe.expert_used_count": None},
        r"qwen2moe\.expert_used_count is missing, expected a whole number; fetch the file again",
    ),
    "more chosen than there are": (
        {"qwen2moe.expert_used_count": 5},
        r"num_experts_per_tok is 5, expected at most num_experts \(3\)",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    metadata, message = DAMAGED[name]
    with pytest.raises(CheckpointError, match=message):
        opened(tmp_path, metadata=metadata)


def test_another_size_of_the_experts_is_refused_when_the_model_is_loaded(tmp_path: Path) -> None:
    found = opened(tmp_path, metadata={"qwen2moe.expert_feed_forward_length": 128})
    with pytest.raises(
        CheckpointError,
        match=r"model\.layers\.0\.mlp\.experts\.0\.gate_proj\.weight has shape \(256, 256\), expected \(128, 256\)",
    ):
        found.load()


def test_a_missing_tensor_of_the_experts_is_named(tmp_path: Path) -> None:
    tensors = tiny.weights(make.config(FAMILY))
    kept = {name: tensor for name, tensor in tensors.items() if "layers.2.mlp.experts" not in name or "up" not in name}
    found = opened(tmp_path, tensors=kept)
    with pytest.raises(CheckpointError, match=r"3 tensors are missing, first model\.layers\.2\.mlp\.experts\.0\.up"):
        found.load()


def test_experts_that_are_no_stack_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"blk\.1\.ffn_up_exps\.weight has the shape \[3, 256\], and expert_"):
        opened(tmp_path, add={"blk.1.ffn_up_exps.weight": torch.zeros(3, 256)})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "weights of the sum 1": ({"qwen2moe.expert_weights_norm": True}, r"not read: qwen2moe\.expert_weights_norm = True"),
    "groups": ({"qwen2moe.expert_group_count": 4}, r"is not read: qwen2moe\.expert_group_count = 4; use another file"),
    "a sigmoid": ({"qwen2moe.expert_gating_func": 2}, r"is not read: qwen2moe\.expert_gating_func = 2; use another"),
    "a window": (
        {"qwen2moe.attention.sliding_window": 64},
        r"qwen2moe\.attention\.sliding_window is 64, which llama\.cpp does not compute",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_llama_cpp_does_not_compute_is_refused(name: str, tmp_path: Path) -> None:
    metadata, message = REFUSED[name]
    with pytest.raises(UnsupportedError, match=message):
        opened(tmp_path, metadata=metadata)


def test_a_pre_tokenizer_that_is_not_named_is_that_of_qwen2(tmp_path: Path) -> None:
    found = opened(tmp_path, metadata={"tokenizer.ggml.pre": None})
    assert found.notes == ("tokenizer.ggml.pre does not name a pre-tokenizer: that of qwen2 is taken",)
