"""The same model in another spelling is the same ModelConfig; what is not known is refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from intaglio.errors import CheckpointError, InputError, UnsupportedError
from intaglio.models.config import ConfigReader, ModelConfig
from intaglio.models.family import FAMILIES
from intaglio.tests import tiny
from intaglio.tests.tiny import ABSENT
from numpy.typing import NDArray

from .variants import FACTORS, GLOBAL, LLAMA3, LONGROPE, VARIANTS, YARN, F, S, Variant


def read(values: dict[str, Any]) -> ModelConfig:
    return FAMILIES[values["model_type"]].parse(ConfigReader(values, "here/config.json"))


def parsed(family: str, *, spelling: str = "5", rope: dict[str, Any] | None = None, **changes: Any) -> ModelConfig:
    return read(tiny.config(family, spelling=spelling, rope=rope, **changes))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_three_spellings_of_the_rope_are_one(variant: Variant) -> None:
    spelt = [
        parsed(variant.family, spelling=spelling, rope=dict(variant.rope or {}), **variant.changes)
        for spelling in ("5", "4", "4-type")
    ]
    assert spelt[0] == spelt[1] == spelt[2]


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v.theirs is None], ids=str)
def test_what_transformers_writes_is_read_back_the_same(variant: Variant, tmp_path: Path) -> None:
    """Including every key that transformers 5 adds when it saves."""
    values = tiny.config(variant.family, spelling=variant.spelling, rope=variant.rope, **variant.changes)
    kinds: dict[str, Any] = {
        "qwen2": transformers.Qwen2Config,
        "exaone4": transformers.Exaone4Config,
        "qwen2_moe": transformers.Qwen2MoeConfig,
    }
    kinds[variant.family].from_dict(values).save_pretrained(tmp_path)
    assert FAMILIES[variant.family].parse(ConfigReader.open(tmp_path)) == read(values)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"head_dim": 16}),
        ({}, {"head_dim": None}),
        ({"num_key_value_heads": 4}, {"num_key_value_heads": None}),
        ({"num_key_value_heads": 4}, {"num_key_value_heads": ABSENT}),
        ({"rms_norm_eps": 1e-6}, {"rms_norm_eps": ABSENT}),
        ({"tie_word_embeddings": False}, {"tie_word_embeddings": ABSENT}),
        ({"pad_token_id": None}, {"pad_token_id": -1}),
        ({"pad_token_id": None}, {"pad_token_id": ABSENT}),
        ({}, {"rope_parameters": ABSENT}),
        ({}, {"rope_parameters": None, "rope_theta": 10_000}),
        ({}, {"rope_parameters": {"rope_theta": 10_000.0, "factor": 8.0}}),
        ({}, {"layer_types": [F] * 4}),
        ({}, {"use_sliding_window": True, "max_window_layers": 4}),
        ({}, {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0}),
        ({}, {"_name_or_path": "x", "_anything": 1, "use_mrope": False, "quantization_config": None}),
        ({}, {"rope_scaling": {"type": "default"}}),
        ({}, {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}}),
        ({}, {"qkv_bias": True, "keys_to_ignore_at_inference": ["past_key_values"]}),
        ({}, {"hidden_act": "swish"}),
        ({}, {"hidden_act": ABSENT}),
        ({}, {"attention_bias": True}),
        ({}, {"no_such_key": None, "mlp_bias": None, "quantization_config": None, "is_encoder_decoder": None}),
        ({}, {"rotary_emb_base": 10_000, "seq_length": 128, "n_layer": 4, "layer_norm_epsilon": 1e-6, "d_model": 64}),
        (
            {},
            {"unsloth_tied_weights": True, "transformers.js_config": {"dtype": "q4"}, "attn_pdrop": 0.1, "fp16": True},
        ),
        ({"is_causal": True}, {"is_causal": True, "use_logn_attn": False, "use_dynamic_ntk": False}),
    ],
    ids=str,
)
def test_the_same_qwen2(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert parsed("qwen2", **one) == parsed("qwen2", **other)


@pytest.mark.parametrize(
    ("changes", "windows", "rotary"),
    [
        ({"sliding_window_pattern": 4}, "LLLG", "RRR-"),
        ({"sliding_window_pattern": "LLLG"}, "LLLG", "RRR-"),
        ({"sliding_window_pattern": ABSENT}, "LLLG", "RRR-"),
        ({"sliding_window_pattern": 3}, "LLGL", "RR-R"),
        ({"sliding_window_pattern": "LLL"}, "LLLG", "RRR-"),
        ({"sliding_window_pattern": "GL"}, "GLGG", "-R--"),
        ({"sliding_window_pattern": None}, "GGGG", "----"),
        ({"sliding_window_pattern": "G", "layer_types": [S, F, F, S]}, "LGGL", "R--R"),
        ({"sliding_window": None}, "GGGG", "RRRR"),
        ({"sliding_window": None, "sliding_window_pattern": "LLLG"}, "GGGG", "RRRR"),
        ({"sliding_window": None, "layer_types": [F] * 4}, "GGGG", "RRRR"),
    ],
    ids=str,
)
def test_the_layers_of_exaone4(changes: dict[str, Any], windows: str, rotary: str) -> None:
    config = parsed("exaone4", **{"layer_types": ABSENT, **changes})
    assert config.layer_windows == tuple(6 if letter == "L" else None for letter in windows)
    assert config.layer_rotary == tuple(letter == "R" for letter in rotary)


def test_defaults_of_the_window() -> None:
    assert parsed("exaone4", sliding_window=ABSENT).layer_windows == (4096, 4096, 4096, None)
    assert parsed("qwen2", use_sliding_window=True, sliding_window=ABSENT).layer_windows == (None, None, 4096, 4096)
    assert parsed("qwen2", use_sliding_window=True, max_window_layers=ABSENT).layer_windows == (None,) * 4


@pytest.mark.parametrize(
    ("rope", "changes", "length"),
    [
        ({}, {}, 128),
        (YARN, {"max_position_embeddings": 16}, 64),
        (YARN, {"max_position_embeddings": 64}, 64),
        ({"rope_type": "dynamic", "factor": 2.0}, {}, 256),
        (LONGROPE, {}, 128),
        (LLAMA3 | {"original_max_position_embeddings": 16}, {}, 128),
    ],
)
def test_context_length(rope: dict[str, Any], changes: dict[str, Any], length: int) -> None:
    assert parsed("qwen2", rope=rope, **changes).context_length == length


PUBLISHED_SIZES: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 13440,
    "num_attention_heads": 32,
    "vocab_size": 92416,
}
PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "CodeQwen1.5-7B-Chat": (
        {"rope_theta": 1_000_000, "rotary_emb_base": 1_000_000, "seq_length": 65536, "max_position_embeddings": 65536},
        65536,
    ),
    "Qwen2.5-7B-Instruct-1M": (
        {
            "rope_theta": 10_000_000.0,
            "max_position_embeddings": 1_010_000,
            "dual_chunk_attention_config": {
                "chunk_size": 262144,
                "local_size": 8192,
                "original_max_position_embeddings": 262144,
            },
        },
        262144,
    ),
    "gte-Qwen2": ({"rope_theta": 1_000_000.0, "auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}}, 128),
}


@pytest.mark.parametrize(("changes", "context"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_configs(changes: dict[str, Any], context: int) -> None:
    config = parsed("qwen2", spelling="4", **PUBLISHED_SIZES, **changes)
    assert config.context_length == context
    assert config.rope.theta == changes["rope_theta"]


def dual_chunk_distances(length: int, chunk: int, local: int) -> NDArray[np.int64]:
    """Return the distance by which dual chunk attention rotates each query and key [S, S].

    An et al. (2024): inside a chunk the positions count from its start; a query sees the chunk before it from
    c + its own position, at most ``chunk``, and all earlier ones from ``chunk`` on.
    """
    size = chunk - local
    chunks, places = np.divmod(np.arange(length), size)
    apart = chunks[:, None] - chunks
    query = np.where(apart == 0, places[:, None], np.minimum(places[:, None] + size, chunk))
    return np.where(apart > 1, chunk + places[:, None], query) - places


@pytest.mark.parametrize(("chunk", "local"), [(12, 4), (16, 1), (16, 8), (16, 12), (9, 8)])
def test_dual_chunk_attention_equals_plain_attention_up_to_the_context(chunk: int, local: int) -> None:
    sizes = {"chunk_size": chunk, "local_size": local}
    length = parsed("qwen2", dual_chunk_attention_config=sizes).context_length
    places = np.arange(3 * chunk)
    causal = places[:, None] >= places
    same = (dual_chunk_distances(3 * chunk, chunk, local) == places[:, None] - places) | ~causal
    assert same[:length].all()
    assert not same.all()
    if chunk != 2 * local:  # otherwise distances are right a while longer
        assert not same[: length + 2].all()
    scaled = parsed("qwen2", dual_chunk_attention_config={**sizes, "original_max_position_embeddings": 5})
    assert scaled.context_length == min(length, 5)
    assert parsed("qwen2", dual_chunk_attention_config={"chunk_size": 500, "local_size": 9}).context_length == 128


def test_labels() -> None:
    assert parsed("qwen2", id2label={"1": "good", "0": "bad"}).labels == ("bad", "good")
    assert parsed("qwen2", num_labels=3).labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert parsed("qwen2").labels == ("LABEL_0", "LABEL_1")


# What each message says after "here/config.json: ".
UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"no_such_key": 3}, "unknown key no_such_key = 3: it may change what the model computes; remove it"),
    (
        {"hidden_act": "prelu"},
        "hidden_act is 'prelu', an activation function that is not supported; supported are gelu",
    ),
    ({"hidden_act": None}, "hidden_act is missing, an activation function that is not supported"),
    ({"hidden_act": ["silu"]}, "hidden_act is ['silu'], an activation function that is not supported"),
    (
        {"first": 1, "use_mrope": True, "quant_method": "awq", "unsloth_x": 1, "nothing": None},
        "3 keys may change what the model computes: use_mrope = True (only False is supported), first = 1 (unknown), "
        "quant_method = 'awq' (unknown); remove from config.json those that do not",
    ),
    (
        {"rotary_emb_base": 10_001, "seq_length": 128, "n_layer": 3},
        "rotary_emb_base = 10001, and rope_theta is 10000.0; n_layer = 3, and num_hidden_layers is 4: usually the one "
        "repeats the other, and here it may mean something else; remove the key that does not hold from config.json",
    ),
    ({"per_layer_config": {"1": {"hidden_act": "relu"}}}, "unknown key per_layer_config = "),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5 changes what the model computes"),
    ({"use_mrope": True}, "use_mrope = True changes what the model computes"),
    ({"is_encoder_decoder": True}, "is_encoder_decoder = True changes what the model computes"),
    ({"pruned_heads": {"0": [1]}}, "pruned_heads = {'0': [1]} changes what the model computes"),
    ({"mlp_bias": True}, "mlp_bias = True changes what the model computes"),
    ({"final_logit_softcapping": 30.0}, "final_logit_softcapping = 30.0 changes what the model computes"),
    ({"rope_parameters": {"rope_type": "proportional"}}, "rope_parameters has the type 'proportional'; supported are"),
    ({"rope_scaling": {"type": "su"}, "rope_parameters": ABSENT}, "rope_scaling has the type 'su'; supported are"),
    ({"rope_parameters": {"rope_type": ["yarn"]}}, "rope_parameters has the type ['yarn']; supported are"),
    (
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "beta_fast": 3}},
        "rope_parameters: unknown key beta_fast = 3 for the type 'linear'; remove it",
    ),
    (
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "beta_fast": 3, "beta_slow": 1}},
        "rope_parameters: unknown keys beta_fast = 3, beta_slow = 1 for the type 'linear'; remove them if",
    ),
    ({"rope_parameters": {"ntk_alpha": 2.0}}, "rope_parameters: unknown key ntk_alpha = 2.0 for the type 'default'"),
    (
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "mrope_section": [1, 2]}},
        "rope_parameters: unknown key mrope_section = [1, 2] for the type 'linear'",
    ),
    ({"rope_parameters": {"partial_rotary_factor": 0.25}}, "rope_parameters: partial_rotary_factor other than 1"),
    ({"rope_parameters": {F: {"rope_type": "default"}}}, f"rope_parameters: unknown key {F} = "),
]

BAD: list[tuple[dict[str, Any], str]] = [
    ({"hidden_size": ABSENT}, "hidden_size is missing, expected a whole number of at least 1; mend config.json"),
    ({"hidden_size": "64"}, "hidden_size is '64', expected a whole number of at least 1; mend config.json"),
    ({"vocab_size": 0}, "vocab_size is 0, expected a whole number of at least 1"),
    ({"num_hidden_layers": True}, "num_hidden_layers is True, expected a whole number"),
    ({"num_hidden_layers": 2.0}, "num_hidden_layers is 2.0, expected a whole number"),
    ({"hidden_size": 66}, "hidden_size is 66, expected a multiple of num_attention_heads (4), or an explicit head_dim"),
    ({"num_key_value_heads": 3}, "num_key_value_heads is 3, expected a divisor of num_attention_heads (4)"),
    ({"head_dim": 15}, "head_dim is 15, expected an even number, since RoPE rotates pairs"),
    ({"rms_norm_eps": -1e-6}, "rms_norm_eps is -1e-06, expected a positive number"),
    ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan, expected a positive number"),
    ({"rms_norm_eps": float("inf")}, "rms_norm_eps is inf, expected a positive number"),
    ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes', expected true or false"),
    ({"pad_token_id": -2}, "pad_token_id is -2, expected a whole number of at least 0"),
    ({"pad_token_id": 288}, "pad_token_id is 288, expected a token of the vocabulary, below vocab_size (288); mend"),
    ({"num_hidden_layers": 6_000_000}, "num_hidden_layers is 6000000, expected a whole number of at most 1,000; mend"),
    ({"vocab_size": 2**62}, f"vocab_size is {2**62}, expected a whole number of at most 16,777,216; mend config.json"),
    ({"intermediate_size": 10**40}, f"intermediate_size is {10**40}, expected a whole number"),
    ({"max_position_embeddings": 2**31}, "max_position_embeddings is 2147483648, expected a whole number of at most"),
    ({"rms_norm_eps": 10**400}, "rms_norm_eps is 1000000000000000000"),
    ({"num_labels": 10**9, "id2label": None}, "num_labels is 1000000000, expected a whole number of at most 1,048,576"),
    ({"layer_types": [F, F, F, [F]]}, "expected a list of 4 entries, each full_attention or sliding"),
    ({"rope_parameters": {"rope_theta": 10**400}}, "rope_theta is 1000000000000000000"),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 1e300}}, "rope_parameters: factor is 1e+300, expected"),
    (
        {"rope_parameters": {"rope_type": "dynamic", "factor": 1e12}},
        "max_position_embeddings is 128, expected at most 2,147,483,647 together with the rotary scaling",
    ),
    ({"problem_type": "ranking"}, "problem_type is 'ranking', expected regression, single_label_classification"),
    ({"id2label": {"0": "a", "2": "b"}}, "id2label is {'0': 'a', '2': 'b'}, expected an object with the keys 0 to"),
    ({"id2label": {"a": 0, "b": 1}}, "id2label is {'a': 0, 'b': 1}, expected an object with the keys 0 to"),
    ({"id2label": ["a", "b"]}, "id2label is ['a', 'b'], expected an object"),
    ({"layer_types": [F] * 3}, "layer_types is ['full_attention', 'full_attention', 'full_attention'], expected a"),
    ({"layer_types": [F, F, F, "linear_attention"]}, "expected a list of 4 entries, each full_attention or sliding"),
    ({"rope_parameters": [1]}, "rope_parameters is [1], expected an object"),
    ({"rope_parameters": {"rope_theta": "abc"}}, "rope_theta is 'abc', expected a number above 1; mend config.json"),
    ({"rope_parameters": ABSENT, "rope_theta": -1}, "rope_theta is -1, expected a number above 1; mend config.json"),
    ({"rope_parameters": {"rope_type": "linear"}}, "rope_parameters: factor is missing, the type 'linear' needs it"),
    ({"rope_parameters": {"rope_type": "yarn", "factor": "4"}}, "rope_parameters: factor is '4', expected a positive"),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 0}}, "rope_parameters: factor is 0, expected a positive"),
    ({"rope_parameters": YARN | {"truncate": None}}, "rope_parameters: truncate is None, expected true or false"),
    (
        {"rope_parameters": YARN | {"original_max_position_embeddings": 1}},
        "original_max_position_embeddings is 1, expected a whole number of at least 2",
    ),
    (
        {"rope_parameters": YARN, "original_max_position_embeddings": "x"},
        "original_max_position_embeddings is 'x', expected a whole number of at least 2",
    ),
    (
        {"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}},
        "rope_parameters: high_freq_factor is missing, the type 'llama3' needs it",
    ),
    (
        {"rope_parameters": LONGROPE | {"short_factor": [1.0] * 7}},
        "rope_parameters: short_factor must be a list of 8 positive numbers, half of head_dim",
    ),
    (
        {"rope_parameters": LONGROPE | {"long_factor": [0.0] * 8}},
        "rope_parameters: long_factor must be a list of 8 positive numbers, half of head_dim",
    ),
    (
        {"rope_parameters": {"rope_type": "longrope", "short_factor": FACTORS["short_factor"]}},
        "rope_parameters: long_factor is missing, the type 'longrope' needs it",
    ),
    (
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        "rope_parameters and rope_scaling contradict each other; remove the one that does not hold",
    ),
]

BAD_WINDOWS: list[tuple[str, dict[str, Any], str]] = [
    ("qwen2", {"layer_types": [F, F, F, S]}, "expected full_attention throughout, since no sliding window is in use"),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 0}, "sliding_window is 0, expected a whole number"),
    ("qwen2", {"use_sliding_window": 1}, "use_sliding_window is 1, expected true or false"),
    ("qwen2", {"use_sliding_window": True, "max_window_layers": -1}, "max_window_layers is -1, expected a whole"),
    ("exaone4", {"sliding_window": "4096"}, "sliding_window is '4096', expected a whole number"),
    ("exaone4", {"sliding_window": None}, "expected full_attention throughout, since sliding_window is null"),
    ("exaone4", {"layer_types": ABSENT, "sliding_window_pattern": "LLX"}, "sliding_window_pattern is 'LLX', expected"),
    ("exaone4", {"layer_types": ABSENT, "sliding_window_pattern": ""}, "sliding_window_pattern is '', expected"),
    ("exaone4", {"layer_types": ABSENT, "sliding_window_pattern": -4}, "sliding_window_pattern is -4, expected"),
    ("exaone4", {"layer_types": ABSENT, "sliding_window_pattern": True}, "sliding_window_pattern is True, expected"),
]
CASES = (
    [(UnsupportedError, family, *case) for family in FAMILIES for case in UNSUPPORTED]
    + [(CheckpointError, family, *case) for family in FAMILIES for case in BAD]
    + [(CheckpointError, *case) for case in BAD_WINDOWS]
    + [
        (UnsupportedError, "qwen2", {"sliding_window_pattern": 4}, "unknown key sliding_window_pattern = 4"),
        (
            UnsupportedError,
            "exaone4",
            {"attention_bias": True},
            "attention_bias = True changes what the model computes",
        ),
        (CheckpointError, "qwen2", {"attention_bias": 0}, "attention_bias is 0, expected true or false"),
        (
            UnsupportedError,
            "exaone4",
            {"dual_chunk_attention_config": {}},
            "unknown key dual_chunk_attention_config = ",
        ),
        (CheckpointError, "qwen2", {"dual_chunk_attention_config": 3}, "dual_chunk_attention_config is 3, expected an"),
        (
            CheckpointError,
            "qwen2",
            {"dual_chunk_attention_config": {"chunk_size": 8}},
            "dual_chunk_attention_config: local_size is missing, expected a whole number of at least 1; mend",
        ),
        (
            CheckpointError,
            "qwen2",
            {"dual_chunk_attention_config": {"chunk_size": 8, "local_size": 8}},
            "dual_chunk_attention_config: local_size is 8, expected a whole number below chunk_size (8)",
        ),
        (
            UnsupportedError,
            "qwen2",
            {"dual_chunk_attention_config": {"chunk_size": 8, "local_size": 2, "sparse_attention_enabled": True}},
            "dual_chunk_attention_config: unknown key 'sparse_attention_enabled': what they change is not known",
        ),
        (
            UnsupportedError,
            "qwen2",
            {"dual_chunk_attention_config": {"chunk_size": 8, "local_size": 2}, "rope_parameters": YARN},
            "RoPE of type 'yarn' together with dual chunk attention is not supported",
        ),
        (UnsupportedError, "exaone4", {"use_sliding_window": True}, "unknown key use_sliding_window = True"),
    ]
)


@pytest.mark.parametrize(("kind", "family", "changes", "message"), CASES, ids=[f"{c[1]}-{c[2]}"[:70] for c in CASES])
def test_refusals(kind: type[InputError], family: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(kind) as caught:
        parsed(family, **changes)
    assert str(caught.value).startswith("here/config.json: ")
    assert message in str(caught.value)


def test_global_exaone4_is_the_same_by_every_route() -> None:
    assert parsed("exaone4", **GLOBAL) == read(tiny.config("exaone4", **{**GLOBAL, "layer_types": ABSENT}))
