"""Merged weights equal those of peft's own merge, for every option that is read."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.models.adapters.given import Adapter, find_adapters
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.reading.options import ReadOptions
from intaglio.tests.models.adapters import peft_maker
from torch import Tensor

pytest.importorskip("peft")
pytest.importorskip("transformers")

FAMILIES = ("qwen2", "exaone4")
ALL = list(peft_maker.PROJECTIONS)


def opened(base: Path, *adapters: Path | Adapter) -> Checkpoint:
    return Checkpoint(base, ReadOptions(adapters=find_adapters(adapters)))


def check(checkpoint: Checkpoint, expected: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    """Check every tensor of the merged model, and that parts of it are those of the whole."""
    tied = checkpoint.config.tie_word_embeddings
    names = {name for name in expected if not (tied and name == "lm_head.weight")}
    assert names <= set(checkpoint.tensors)
    for name in names:
        found = checkpoint.tensor(name)
        assert found.shape == expected[name].shape == torch.Size(checkpoint.tensors[name].shape)
        torch.testing.assert_close(found, expected[name], rtol=tolerance, atol=tolerance)
        check_ranges(checkpoint, name, found)


def check_ranges(checkpoint: Checkpoint, name: str, whole: Tensor) -> None:
    rows = torch.cat([part for _, part in checkpoint.rows(name, chunk_bytes=7 * whole[0].nbytes)])
    assert torch.equal(rows, whole), name
    if whole.ndim == 2:
        bounds = [0, 5, 6, whole.shape[1] // 2, whole.shape[1]]
        columns = [checkpoint.columns(name, start, stop) for start, stop in pairwise(bounds)]
        assert torch.equal(torch.cat(columns, 1), whole), name


def lora(**settings: Any) -> Any:
    import peft

    defaults: dict[str, Any] = {"r": 4, "lora_alpha": 6, "target_modules": ALL, "task_type": "CAUSAL_LM"}
    return peft.LoraConfig(**(defaults | settings))


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one module": {"target_modules": ["q_proj"]},
    "all-linear": {"target_modules": "all-linear"},
    "regex": {"target_modules": r".*\.layers\.[13]\..*\.(q|v)_proj"},
    "rank_pattern": {"rank_pattern": {"q_proj": 2, r"^model\.layers\.1\.mlp\.down_proj": 7}},
    "alpha_pattern": {"alpha_pattern": {r"layers\.\d+\.self_attn\..*": 3, "up_proj": 20}},
    "patterns with rslora": {"use_rslora": True, "rank_pattern": {"q_proj": 9}, "alpha_pattern": {"q_proj": 5}},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "dora with rslora": {"use_dora": True, "use_rslora": True},
    "large rank": {"r": 80},
    "fan_in_fan_out": {"fan_in_fan_out": True},
    "layers": {"layers_to_transform": [0, 3]},
    "one layer, by its pattern": {"layers_to_transform": 2, "layers_pattern": "layers"},
    "exclude_modules": {"exclude_modules": ["gate_proj", "model.layers.0.self_attn.q_proj"]},
    "head and embedding": {"target_modules": [*ALL, "lm_head", "embed_tokens"]},
    "head and embedding, dora": {"target_modules": ["lm_head", "embed_tokens"], "use_dora": True},
    "whole modules": {"modules_to_save": ["embed_tokens", "lm_head", "norm", "post_attention_layernorm"]},
    "rows of tokens": {"trainable_token_indices": [3, 287, 5]},
    "rows of both": {"trainable_token_indices": {"embed_tokens": [1, 2], "lm_head": [4]}},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
}
BIASES: dict[str, dict[str, Any]] = {
    "bias all": {"bias": "all", "target_modules": ["q_proj", "down_proj"]},
    "bias lora_only": {"bias": "lora_only", "target_modules": ["q_proj", "down_proj"]},
    "lora_bias": {"lora_bias": True, "target_modules": ["q_proj", "v_proj"]},
}


@pytest.mark.quick_one_in(2)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_lora(tmp_path: Path, family: str, option: str) -> None:
    base = peft_maker.base(tmp_path / "base", family)
    adapter = peft_maker.write(tmp_path / "adapter", base, lora(**OPTIONS[option]))
    check(opened(base, adapter), peft_maker.merged(base, [(adapter, 1.0)]))


@pytest.mark.parametrize("option", BIASES)
def test_biases(tmp_path: Path, option: str) -> None:
    base = peft_maker.base(tmp_path / "base")
    adapter = peft_maker.write(tmp_path / "adapter", base, lora(**BIASES[option]))
    check(opened(base, adapter), peft_maker.merged(base, [(adapter, 1.0)]))


@pytest.mark.quick_one_in(2)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "task", ["feature-extraction", "text-classification", "token-classification", "question-answering"]
)
def test_heads_over_their_own_base(tmp_path: Path, family: str, task: str) -> None:
    base = peft_maker.base(tmp_path / "base", family, task)
    settings = {"task_type": peft_maker.CLASSES[task][1]}
    adapter = peft_maker.write(tmp_path / "adapter", base, lora(**settings), task=task)
    checkpoint = opened(base, adapter)
    assert checkpoint.task == task
    check(checkpoint, peft_maker.merged(base, [(adapter, 1.0)], task))


def methods() -> dict[str, Callable[[], Any]]:
    import peft

    shared: dict[str, Any] = {"target_modules": ALL, "task_type": "CAUSAL_LM"}
    return {
        "loha": lambda: peft.LoHaConfig(r=4, alpha=6, rank_pattern={"q_proj": 2}, **shared),
        "lokr": lambda: peft.LoKrConfig(r=4, alpha=6, **shared),
        "lokr, small rank": lambda: peft.LoKrConfig(r=2, alpha=6, decompose_both=True, decompose_factor=8, **shared),
        "ia3": lambda: peft.IA3Config(
            target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"
        ),
    }


@pytest.mark.quick_one_in(2)
@pytest.mark.parametrize("method", ["loha", "lokr", "lokr, small rank", "ia3"])
@pytest.mark.parametrize("family", FAMILIES)
def test_other_methods(tmp_path: Path, family: str, method: str) -> None:
    base = peft_maker.base(tmp_path / "base", family)
    adapter = peft_maker.write(tmp_path / "adapter", base, methods()[method]())
    check(opened(base, adapter), peft_maker.merged(base, [(adapter, 1.0)]))


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, -2.0), (0.25, 1.0)])
def test_several_adapters(tmp_path: Path, weights: Sequence[float]) -> None:
    base = peft_maker.base(tmp_path / "base")
    one = peft_maker.write(tmp_path / "one", base, lora(target_modules=["q_proj", "up_proj"]), seed=1)
    two = peft_maker.write(tmp_path / "two", base, lora(r=6, target_modules=["q_proj", "down_proj"]), seed=2)
    checkpoint = opened(base, Adapter(one, weights[0]), Adapter(two, weights[1]))
    check(checkpoint, peft_maker.merged(base, list(zip((one, two), weights, strict=True))))
