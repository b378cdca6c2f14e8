"""Adapters that are damaged, hostile, or not merged: each is refused by name."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.errors import CheckpointError, HubError, IntaglioError, UnsupportedError, UsageError
from intaglio.models.adapters.given import Adapter, find_adapters, parse_adapter
from intaglio.tests import tiny
from intaglio.tests.models.adapters import by_hand
from intaglio.tests.models.adapters.by_hand import Q_PROJ, matrices, noise, opened, write
from torch import Tensor

LM_HEAD = "base_model.model.lm_head"
EMBED = "base_model.model.model.embed_tokens"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("base"), tiny.config("qwen2"))


CONFIGS: dict[str, tuple[dict[str, Any], type[IntaglioError], str]] = {
    "prompt tuning": ({"peft_type": "PROMPT_TUNING"}, UnsupportedError, r"peft_type is PROMPT_TUNING: it adds to what"),
    "prefix tuning": ({"peft_type": "PREFIX_TUNING"}, UnsupportedError, r"so that it cannot be merged"),
    "vera": (
        {"peft_type": "VERA"},
        UnsupportedError,
        r"peft_type is 'VERA', which is not merged \(those that are: LORA",
    ),
    "no method": ({"peft_type": None}, UnsupportedError, r"peft_type is None, which is not merged"),
    "mlx-lm": (
        {"peft_type": None, "fine_tune_type": "lora"},
        UnsupportedError,
        r"is that of an adapter of mlx-lm, which is not read; fuse it",
    ),
    "layer_replication": (
        {"layer_replication": [[0, 4], [2, 4]]},
        UnsupportedError,
        r"layer_replication = .* is not merged: it builds a deeper model",
    ),
    "target_parameters": ({"target_parameters": ["x"]}, UnsupportedError, r"target_parameters = \['x'\] is not merged"),
    "alora": ({"alora_invocation_tokens": [1, 2]}, UnsupportedError, r"it is active only after certain tokens"),
    "qalora": ({"use_qalora": True}, UnsupportedError, r"use_qalora = True is not merged: it pools"),
    "arrow": ({"arrow_config": {"top_k": 2}}, UnsupportedError, r"it chooses adapters for each token"),
    "megatron": ({"megatron_config": {"x": 1}}, UnsupportedError, r"its layers are those of Megatron"),
    "bdlora": ({"use_bdlora": {"nblocks": 2}}, UnsupportedError, r"its matrices are block-diagonal"),
    "kasa": ({"kasa_config": {"beta": 1}}, UnsupportedError, r"it truncates the base's weights"),
    "unknown": ({"use_magic": True}, UnsupportedError, r"unknown key use_magic = True: it may change what the adapter"),
    "pissa": ({"init_lora_weights": "pissa_niter_4"}, UnsupportedError, r"'pissa_niter_4': the adapter was trained on"),
    "olora": ({"init_lora_weights": "olora"}, UnsupportedError, r"path_initial_model_for_weight_conversion"),
    "loftq": ({"init_lora_weights": "loftq"}, UnsupportedError, r"init_lora_weights is 'loftq'"),
    "corda": ({"init_lora_weights": "corda"}, UnsupportedError, r"init_lora_weights is 'corda'"),
    "task": ({"task_type": "SEQ_2_SEQ_LM"}, UnsupportedError, r"task_type is 'SEQ_2_SEQ_LM'; supported are CAUSAL_LM"),
    "rank": ({"r": 0}, CheckpointError, r"r is 0, expected a whole number from 1"),
    "rank of another file": ({"r": 8}, CheckpointError, r"has the shape \(4, 64\), and lora_A of self|at rank 8 needs"),
    "a huge rank": ({"r": 10**30}, CheckpointError, r"r is 10+, expected a whole number from 1 to"),
    "alpha": ({"lora_alpha": float("nan")}, CheckpointError, r"lora_alpha is nan, expected a number"),
    "alpha pattern": (
        {"alpha_pattern": {"q_proj": float("inf")}},
        CheckpointError,
        r"q_proj is inf, expected a number",
    ),
    "rank pattern": (
        {"rank_pattern": {"q_proj": "8"}},
        CheckpointError,
        r"rank_pattern: q_proj is '8', expected a who",
    ),
    "patterns": ({"rank_pattern": [8]}, CheckpointError, r"rank_pattern is \[8\], expected an object"),
    "exponential pattern": (
        {"target_modules": r"(a|a?)+$"},
        UnsupportedError,
        r"target_modules: the pattern '\(a\|a\?\)\+\$' repeats a group",
    ),
    "exponential rank": ({"rank_pattern": {r"(x+x+)+y": 4}}, UnsupportedError, r"so that its time is not bounded"),
    "many repetitions": ({"exclude_modules": ".*" * 9}, UnsupportedError, r"has more than 6 repetitions"),
    "no pattern": ({"target_modules": "q_proj["}, UnsupportedError, r"'q_proj\[' is not a regular expression"),
    "targets": (
        {"target_modules": [1]},
        CheckpointError,
        r"target_modules is \[1\], expected a text or a list of texts",
    ),
    "other targets": (
        {"target_modules": ["v_proj"]},
        CheckpointError,
        r"target_modules does not name model\.layers\.0\.self_attn\.q_proj, which adapter_model\.safetensors has",
    ),
    "more targets": (
        {"target_modules": ["q_proj"]},
        CheckpointError,
        r"names 3 modules that adapter_model\.safetensors has no tensors of, first model\.layers\.1\.self_attn\.q_proj",
    ),
    "dora without magnitudes": (
        {"use_dora": True},
        CheckpointError,
        r"q_proj has no lora_magnitude_vector; the adapter",
    ),
    "lora_bias without one": (
        {"lora_bias": True},
        CheckpointError,
        r"q_proj has no lora_B\.bias; the adapter is not w",
    ),
    "bias": ({"bias": "some"}, CheckpointError, r"bias is 'some'; expected none, all or lora_only"),
    "saved": (
        {"modules_to_save": ["embed_tokens"]},
        CheckpointError,
        r"modules_to_save names embed_tokens, and adapter_model\.safetensors has no weight of it",
    ),
    "tokens twice": ({"trainable_token_indices": [1, 1]}, CheckpointError, r"names a token of embed_tokens twice"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configs(tmp_path: Path, base: Path, case: str) -> None:
    changes, error, message = CONFIGS[case]
    with pytest.raises(error, match=message):
        opened(base, write(tmp_path, **changes))


def renamed(**names: str) -> dict[str, Tensor]:
    return {names.get(name.rsplit(".lora_", 1)[1][0], name): tensor for name, tensor in matrices().items()}


TENSORS: dict[str, tuple[Callable[[], Mapping[str, Tensor]], dict[str, Any], type[IntaglioError], str]] = {
    "no B": (
        lambda: {name: tensor for name, tensor in matrices().items() if "lora_A" in name},
        {},
        CheckpointError,
        r"self_attn\.q_proj has no lora_B; the adapter is not whole",
    ),
    "another width": (
        lambda: matrices(columns=96),
        {},
        CheckpointError,
        r"has the shape \(4, 96\), and lora_A of layers\.0\.self_attn\.q_proj at rank 4 needs \(4, 64\)",
    ),
    "another layer": (
        lambda: matrices("base_model.model.model.layers.9.self_attn.q_proj"),
        {"target_modules": ["q_proj"]},
        CheckpointError,
        r"names 4 modules that|changes model\.layers\.9\.self_attn\.q_proj\.weight, which the base does not have",
    ),
    "another architecture": (
        lambda: matrices("base_model.model.transformer.h.0.attn.c_attn"),
        {},
        UnsupportedError,
        r"transformer\.h\.0\.attn\.c_attn\.lora_A\.weight belongs to no module of a supported family",
    ),
    "a path": (
        lambda: matrices("base_model.model.../../etc/passwd"),
        {},
        UnsupportedError,
        r"belongs to no module of a supported family",
    ),
    "an unknown part": (
        lambda: {**matrices(), f"{Q_PROJ}.lora_C.weight": noise(4, 4)},
        {},
        UnsupportedError,
        r"q_proj\.lora_C\.weight belongs to no module of a supported family; the adapter was trained on another",
    ),
    "a part of another method": (
        lambda: {**matrices(), f"{Q_PROJ}.ia3_l": noise(64, 1)},
        {},
        CheckpointError,
        r"q_proj has ia3_l, which an adapter of the method LORA with this .* has not",
    ),
    "magnitudes without dora": (
        lambda: {**matrices(), f"{Q_PROJ}.lora_magnitude_vector": noise(64)},
        {},
        CheckpointError,
        r"q_proj has lora_magnitude_vector, which an adapter",
    ),
    "the same part twice": (
        lambda: {**matrices(), f"{Q_PROJ}.lora_A.default.weight": noise(4, 64)},
        {},
        CheckpointError,
        r"are both lora_A of layers\.0\.self_attn\.q_proj; remove the one that does not count",
    ),
    "two adapters": (
        lambda: renamed(A=f"{Q_PROJ}.lora_A.one.weight", B=f"{Q_PROJ}.lora_B.two.weight"),
        {},
        CheckpointError,
        r"holds several adapters \(one, two\); save each in a folder of its own",
    ),
    "integers": (
        lambda: {name: tensor.to(torch.int8) for name, tensor in matrices().items()},
        {},
        UnsupportedError,
        r"has dtype I8; supported are F32, F16, BF16, F64",
    ),
    "a shard": (
        lambda: {**matrices(), f"{Q_PROJ}.lora_B.weight": torch.zeros(0)},
        {},
        CheckpointError,
        r"has the shape \(0,\): it is empty, as of a model in shards that were not gathered",
    ),
    "nothing": (dict, {}, CheckpointError, r"adapter_model\.safetensors holds no tensors; fetch the adapter again"),
    "a wrong whole tensor": (
        lambda: {**matrices(), "base_model.model.model.norm.weight": noise(65)},
        {},
        CheckpointError,
        r"norm\.weight has the shape \(65,\), and model\.norm\.weight needs \(64,\)",
    ),
    "rows that no token names": (
        lambda: {**matrices(), f"{EMBED}.token_adapter.trainable_tokens_delta": noise(2, 64)},
        {},
        CheckpointError,
        r"has rows of embed_tokens, and trainable_token_indices in .* does not say which",
    ),
    "rows beyond the vocabulary": (
        lambda: {**matrices(), f"{EMBED}.token_adapter.trainable_tokens_delta": noise(2, 64)},
        {"trainable_token_indices": [1, 288]},
        CheckpointError,
        r"names the token 288, and model\.embed_tokens\.weight has 288 rows",
    ),
    "other rows": (
        lambda: {**matrices(), f"{EMBED}.token_adapter.trainable_tokens_delta": noise(2, 64)},
        {"trainable_token_indices": [1, 2, 3]},
        CheckpointError,
        r"has the shape \(2, 64\), and 3 rows of model\.embed_tokens\.weight needs \(3, 64\)",
    ),
    "an embedding as a projection": (
        lambda: matrices(EMBED),
        {"target_modules": ["embed_tokens"]},
        CheckpointError,
        r"embed_tokens has no lora_embedding_A",
    ),
    "a norm": (
        lambda: matrices("base_model.model.model.norm"),
        {"target_modules": ["model.norm"]},
        CheckpointError,
        r"norm is no matrix, and the adapter has a product for it",
    ),
    "a bias where there is none": (
        lambda: {
            **matrices("base_model.model.model.layers.0.self_attn.o_proj"),
            "base_model.model.model.layers.0.self_attn.o_proj.lora_B.bias": noise(64),
        },
        {"lora_bias": True, "target_modules": r"model\.layers\.0\.self_attn\.o_proj"},
        UnsupportedError,
        r"adds a bias to layers\.0\.self_attn\.o_proj \(lora_bias\), which has none in this base",
    ),
    "a head without a task": (
        lambda: {**matrices(), "base_model.model.score.weight": noise(3, 64)},
        {"task_type": None},
        UnsupportedError,
        r"has the head score, the base is for text-generation, and task_type in .* is null; write the task there",
    ),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors(tmp_path: Path, base: Path, case: str) -> None:
    make, changes, error, message = TENSORS[case]
    with pytest.raises(error, match=message):
        opened(base, write(tmp_path, make(), **changes))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_numbers_that_are_not_finite(tmp_path: Path, base: Path, value: float) -> None:
    tensors = {name: torch.full_like(tensor, value) for name, tensor in matrices().items()}
    checkpoint = opened(base, write(tmp_path, tensors))
    with pytest.raises(CheckpointError, match=r"has values that are not finite; the adapter"):
        checkpoint.tensor("model.layers.0.self_attn.q_proj.weight")


def test_files(tmp_path: Path, base: Path) -> None:
    adapter = write(tmp_path / "adapter")
    weights = adapter / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors is not a whole safetensors file"):
        opened(base, adapter)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"has no adapter_model\.safetensors; fetch the adapter's weights"):
        opened(base, adapter)
    (adapter / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(UnsupportedError, match=r"adapter_model\.bin is a pickle, which can run any code when opened"):
        opened(base, adapter)
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"adapter_config\.json cannot be read"):
        opened(base, adapter)
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"has no adapter_config\.json: it is not a PEFT adapter; give the folder"
    ):
        opened(base, adapter)


def test_what_a_caller_gives(tmp_path: Path, base: Path) -> None:
    adapter = write(tmp_path / "a")
    assert parse_adapter("a=0.5") == Adapter("a", 0.5)
    assert parse_adapter("org/name@main=-2") == Adapter("org/name@main", -2.0)
    assert parse_adapter("a=b") == Adapter("a=b")
    (tmp_path / "b=1").mkdir()
    assert parse_adapter(f"{tmp_path}/b=1") == Adapter(f"{tmp_path}/b=1")
    for weight in (0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match=r"has the weight .*; give a number other than 0"):
            find_adapters([Adapter(adapter, weight)])
    with pytest.raises(UsageError, match=r"is given twice; give it once, with the sum of the weights"):
        find_adapters([adapter, tmp_path / "b=1" / ".." / "a"])
    with pytest.raises(UsageError, match=r"65 adapters are given; at most 64 are merged"):
        find_adapters([adapter] * 65)
    with pytest.raises(HubError, match=r"there is no such folder, and it is not a hub id either"):
        find_adapters([tmp_path / "missing"])


def test_adapters_that_do_not_add_up(tmp_path: Path, base: Path) -> None:
    dora = {**matrices(), f"{Q_PROJ}.lora_magnitude_vector": noise(64).abs() + 1}
    first, second = write(tmp_path / "first", dora, use_dora=True), write(tmp_path / "second")
    with pytest.raises(UnsupportedError, match=r"is DoRA and has the weight 0\.5: its change is no sum that a weight"):
        opened(base, Adapter(first, 0.5))
    for pair in ((first, second), (second, first)):
        with pytest.raises(
            UnsupportedError, match=r"both change model\.layers\.0\.self_attn\.q_proj\.weight, .* by DoRA"
        ):
            opened(base, *pair)
    whole = {**matrices(), "base_model.model.model.norm.weight": noise(64)}
    third, fourth = write(tmp_path / "third", whole), write(tmp_path / "fourth", whole)
    with pytest.raises(UnsupportedError, match=r"both bring model\.norm\.weight whole; merge one of them"):
        opened(base, third, fourth)
    notes = opened(base, Adapter(third, 0.5)).notes
    assert f"the weight 0.5 of the adapter {third} does not apply to the tensors that it brings whole" in notes[0]
    head = {**matrices(), "base_model.model.score.weight": noise(3, 64)}
    with pytest.raises(UnsupportedError, match=r"for different tasks \(text-classification, text-generation\)"):
        opened(base, second, write(tmp_path / "head", head, task_type="SEQ_CLS"))


def test_names_of_other_writers(tmp_path: Path, base: Path) -> None:
    """State dicts have the adapter's name, and wrappers of trainers; models of images and text a longer prefix."""
    name = "model.layers.0.self_attn.q_proj.weight"
    expected = opened(base, write(tmp_path / "usual")).tensor(name)
    for number, (old, new) in enumerate(
        {
            "lora_{}.weight": "lora_{}.default.weight",
            "base_model.model.model.": "base_model.model._orig_mod.model.",
            "base_model.model.": "",
        }.items()
    ):
        tensors = {}
        for key, tensor in matrices().items():
            for letter in "AB":
                key = key.replace(old.format(letter), new.format(letter), 1)
            tensors[key] = tensor
        assert torch.equal(opened(base, write(tmp_path / str(number), tensors)).tensor(name), expected), new
    tensors = {key.replace("model.layers", "model.language_model.layers"): tensor for key, tensor in matrices().items()}
    adapter = write(tmp_path / "language_model", tensors, target_modules=r".*\.layers\.0\.self_attn\.q_proj")
    assert torch.equal(opened(base, adapter).tensor(name), expected)


def test_unsloth_pattern_of_targets(tmp_path: Path, base: Path) -> None:
    pattern = (
        r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?(?:q_proj|k_proj).*?)|"
        r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\.(?:(?:q_proj)))"
    )
    tensors: dict[str, Tensor] = {}
    for layer in range(4):
        tensors |= matrices(f"base_model.model.model.layers.{layer}.self_attn.q_proj")
    checkpoint = opened(base, write(tmp_path, tensors, target_modules=pattern, unsloth_fixed=True))
    assert checkpoint.tensors["model.layers.3.self_attn.q_proj.weight"].dtype == "F32"


def test_many_patterns_are_refused(tmp_path: Path, base: Path) -> None:
    patterns = {f"layers.{index}.q_proj": 4 for index in range(8193)}
    with pytest.raises(UnsupportedError, match=r"rank_pattern has 8,193 patterns; at most 8,192 are read"):
        opened(base, write(tmp_path, rank_pattern=patterns))


def test_labels_of_a_damaged_config_beside_it(tmp_path: Path, base: Path) -> None:
    tensors = {**matrices(), "base_model.model.score.weight": noise(3, 64)}
    adapter = write(tmp_path, tensors, task_type="SEQ_CLS")
    (adapter / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"config\.json: expected a JSON object; remove the file"):
        opened(base, adapter)
    (adapter / "config.json").write_text(json.dumps({"id2label": {"0": "a", "2": "b", "3": "c"}}))
    assert opened(base, adapter).config.labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_a_base_of_another_task(tmp_path: Path) -> None:
    base = tiny.write(tmp_path / "base", tiny.config("qwen2", "text-classification"))
    with pytest.raises(
        UnsupportedError, match=r"was trained for text-generation .*, and the base is for text-classific"
    ):
        opened(base, by_hand.write(tmp_path / "adapter"))
