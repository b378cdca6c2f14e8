"""A GGUF file is a checkpoint: the tensors, the config and the text files of the folder that it is made of."""

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from intaglio.errors import CheckpointError, UnsupportedError
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.digest import Digest
from intaglio.models.rope import inverse_frequencies
from intaglio.tests import tiny

from . import make

FAMILIES = ("qwen2", "exaone4")
EXAONE = {
    "factor": 16.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""The scaling of EXAONE 4.0 1.2B."""
ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 1e6},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
}
LLAMA3: dict[str, dict[str, Any]] = {
    "EXAONE 4.0 1.2B": {**EXAONE, "rope_theta": 1e6},
    "Llama 3.1": {**EXAONE, "factor": 8.0, "rope_theta": 5e5},
    "short": {**EXAONE, "factor": 2.0, "original_max_position_embeddings": 256},
    "a length that is no power of two": {**EXAONE, "original_max_position_embeddings": 6000},
    "another high factor": {**EXAONE, "high_freq_factor": 8.0, "original_max_position_embeddings": 4096},
}


def opened(tmp_path: Path, values: Mapping[str, Any], type_name: str = "F32", **options: Any) -> Checkpoint:
    return Checkpoint(make.write(tmp_path / "tiny.gguf", values, type_name, **options))


def changed(metadata: Mapping[str, Any]) -> Callable[[Path], Checkpoint]:
    family = "exaone4" if any(key.startswith("exaone4") for key in metadata) else "qwen2"
    return lambda folder: opened(folder, make.config(family), metadata=metadata)


@pytest.mark.parametrize("tied", [False, True], ids=["", "tied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_floats_are_those_of_the_checkpoint(family: str, tied: bool, tmp_path: Path) -> None:
    values = make.config(family, tie_word_embeddings=tied)
    expected = tiny.weights(values)
    found = opened(tmp_path, values)
    assert found.tensors.keys() == expected.keys()
    assert all(torch.equal(found.tensor(name), tensor) for name, tensor in expected.items())
    plain = Checkpoint(tiny.write(tmp_path / "plain", values))
    assert found.config == plain.config
    assert (found.task, found.architecture) == (plain.task, plain.architecture)
    assert found.quantized == {}
    assert found.notes == ()


@pytest.mark.parametrize("type_name", ["Q8_0", "Q4_K", "F16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_parts_and_a_folder_are_the_file(family: str, type_name: str, tmp_path: Path) -> None:
    values = make.config(family)
    whole = opened(tmp_path, values, type_name)
    (tmp_path / "split").mkdir()
    first = make.write(tmp_path / "split" / "tiny.gguf", values, type_name, parts=4)
    for place in (first, first.parent, sorted(first.parent.glob("*.gguf"))[2]):
        found = Checkpoint(place)
        assert found.config == whole.config
        assert all(torch.equal(found.tensor(name), whole.tensor(name)) for name in whole.tensors)
        assert len(found.files) == 4


def test_a_folder_with_several_files_names_them(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        make.write(tmp_path / name, make.config("qwen2"))
    with pytest.raises(UnsupportedError, match=r"holds several GGUF files \(a\.gguf, b\.gguf\); name one of them"):
        Checkpoint(tmp_path)
    assert Checkpoint(tmp_path / "b.gguf").files == (tmp_path / "b.gguf",)


def test_the_temporary_folder_goes_with_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    found = opened(tmp_path, make.config("qwen2"))
    assert found.folder.name == "tiny.gguf"
    assert (found.folder / "config.json").is_file()
    del found
    assert list((tmp_path / "temporary").iterdir()) == []
    for metadata in ({"tokenizer.ggml.pre": "another"}, {"tokenizer.chat_template.a/b": "{{ x }}"}):
        with pytest.raises((CheckpointError, UnsupportedError)):
            changed(metadata)(tmp_path)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    def digest() -> str:
        with Digest(Checkpoint(tmp_path / "tiny.gguf")) as found:
            return found.wait(lambda stage, done, total: None)

    opened(tmp_path, make.config("qwen2"))
    first = digest()
    assert first == digest()
    data = bytearray((tmp_path / "tiny.gguf").read_bytes())
    data[-1] ^= 1
    (tmp_path / "tiny.gguf").write_bytes(data)
    assert first != digest()


@pytest.mark.parametrize("name", ROPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_rope_is_that_of_the_config(family: str, name: str, tmp_path: Path) -> None:
    values = make.config(family, rope=ROPES[name])
    assert opened(tmp_path, values).config == Checkpoint(tiny.write(tmp_path / "plain", values)).config


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("name", LLAMA3)
def test_llama3_is_found_in_the_factors(name: str, head_dim: int, tmp_path: Path) -> None:
    rope = {"rope_type": "llama3", **LLAMA3[name]}
    values = make.config("exaone4", rope=rope) | {"head_dim": head_dim, "max_position_embeddings": 65536}
    expected = Checkpoint(tiny.write(tmp_path / "plain", values)).config
    found = opened(tmp_path, values).config
    ours, theirs = (inverse_frequencies(config.rope, head_dim)[0] for config in (found, expected))
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=0)
    if LLAMA3[name]["high_freq_factor"] == 4.0:
        assert found == expected


def test_other_factors_are_refused(tmp_path: Path) -> None:
    factors = torch.linspace(1, 3, 32)
    with pytest.raises(
        UnsupportedError, match=r"the factors of the tensor rope_freqs\.weight are not those of llama3's"
    ):
        opened(tmp_path, make.config("exaone4"), add={"rope_freqs.weight": factors})
    with pytest.raises(CheckpointError, match=r"rope_freqs\.weight has factors that are not positive"):
        opened(tmp_path, make.config("exaone4"), add={"rope_freqs.weight": -factors})
    with pytest.raises(
        UnsupportedError, match=r"a tensor is unknown in the architecture qwen2, first rope_freqs\.weight"
    ):
        opened(tmp_path, make.config("qwen2"), add={"rope_freqs.weight": factors})
    assert (
        opened(tmp_path, make.config("exaone4"), add={"rope_freqs.weight": torch.ones(32)}).config.rope.type
        == "default"
    )


def test_windows(tmp_path: Path) -> None:
    key = "exaone4.attention.sliding_window"
    flags = [True, False, True, True]
    windows = changed({f"{key}_pattern": flags})(tmp_path).config
    assert windows.layer_windows == (6, None, 6, 6)
    assert windows.layer_rotary == tuple(flags)
    every = changed({f"{key}_pattern": 2})(tmp_path).config
    assert every.layer_windows == (6, None, 6, None)
    none = changed({key: None, f"{key}_pattern": None})(tmp_path).config
    assert none.layer_windows == (None,) * 4
    assert none.layer_rotary == (True,) * 4
    with pytest.raises(UnsupportedError, match=r"sliding_window is 6, and .*sliding_window_pattern, .* is missing"):
        changed({f"{key}_pattern": None})(tmp_path)
    with pytest.raises(CheckpointError, match=r"sliding_window_pattern is array.*, expected an array of 4 flags"):
        changed({f"{key}_pattern": [True] * 3})(tmp_path)


def test_64_layers_are_the_hybrid_model_as_in_llama_cpp(tmp_path: Path) -> None:
    key = "exaone4.attention.sliding_window"
    values = make.config("exaone4", num_hidden_layers=64, layer_types=["sliding_attention"] * 64)
    found = opened(tmp_path, values, metadata={key: None, f"{key}_pattern": None}).config
    assert found.layer_windows == (4096, 4096, 4096, None) * 16


REFUSED: dict[str, tuple[Mapping[str, Any], str]] = {
    "another architecture": (
        {"general.architecture": "llama"},
        r"general\.architecture is 'llama', which is not supported; supported are qwen2, exaone4",
    ),
    "an adapter": ({"general.type": "adapter"}, r"is no model: general\.type is 'adapter'; give the file of the model"),
    "an old quantization": (
        {"general.quantization_version": 1},
        r"general\.quantization_version is 1, and version 2 is",
    ),
    "an unknown key": (
        {"qwen2.attention.temperature_scale": 0.5},
        r"may change what the model computes, and is not read: qwen2\.attention\.temperature_scale = 0\.5",
    ),
    "experts": ({"qwen2.expert_count": 8}, r"is not read: qwen2\.expert_count = 8; use another file"),
    "a window": (
        {"qwen2.attention.sliding_window": 64},
        r"qwen2\.attention\.sliding_window is 64, which llama\.cpp does",
    ),
    "part of a head": (
        {"qwen2.rope.dimension_count": 32},
        r"rope\.dimension_count is 32, and heads of 64 are read whole",
    ),
    "other values": ({"qwen2.attention.value_length": 32}, r"attention\.value_length is 32, and heads of 64 are read"),
    "heads by layer": (
        {"qwen2.attention.head_count": [4, 4, 4, 2]},
        r"qwen2\.attention\.head_count differs from layer to layer, which is not supported",
    ),
    "longrope": ({"qwen2.rope.scaling.type": "longrope"}, r"scaling\.type is 'longrope', which is not supported; supp"),
    "yarn's own factor": (
        {
            "qwen2.rope.scaling.type": "yarn",
            "qwen2.rope.scaling.factor": 2.0,
            "qwen2.rope.scaling.yarn_attn_factor": 0.5,
        },
        r"yarn_attn_factor is 0\.5, and only 1\.0 is supported",
    ),
    "a reranker": ({"qwen2.pooling_type": 4}, r"qwen2\.pooling_type is 4, that of a reranker, whose head is not read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_expressed_is_refused_by_name(name: str, tmp_path: Path) -> None:
    metadata, message = REFUSED[name]
    if "general.architecture" in metadata:
        path = make.write(tmp_path / "tiny.gguf", make.config("qwen2"))
        path.write_bytes(path.read_bytes().replace(b"\5\0\0\0\0\0\0\0qwen2", b"\5\0\0\0\0\0\0\0llama", 1))
        with pytest.raises(UnsupportedError, match=message):
            Checkpoint(path)
        return
    with pytest.raises(UnsupportedError, match=message) as caught:
        changed(metadata)(tmp_path)
    assert str(tmp_path / "tiny.gguf") in str(caught.value)


CONTRADICTORY: dict[str, tuple[Mapping[str, Any], str]] = {
    "no layers": ({"qwen2.block_count": None}, r"qwen2\.block_count is missing, expected a whole number; fetch"),
    "no epsilon": (
        {"qwen2.attention.layer_norm_rms_epsilon": None},
        r"layer_norm_rms_epsilon is missing, expected a num",
    ),
    "a text of layers": ({"qwen2.block_count": "4"}, r"qwen2\.block_count is '4', expected a whole number"),
    "another vocabulary": ({"qwen2.vocab_size": 300}, r"vocab_size is 300, and token_embd\.weight has 288 rows; fetch"),
    "yarn without a factor": (
        {"qwen2.rope.scaling.type": "yarn"},
        r"scaling\.factor is missing, expected a number, for",
    ),
    "an odd head": (
        {"qwen2.attention.head_count_kv": 3},
        r"tiny\.gguf, read as config\.json: num_key_value_heads is 3",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTORY)
def test_contradictory_metadata_is_refused(name: str, tmp_path: Path) -> None:
    metadata, message = CONTRADICTORY[name]
    with pytest.raises(CheckpointError, match=message):
        changed(metadata)(tmp_path)


def test_keys_without_effect_are_left_out(tmp_path: Path) -> None:
    plain = opened(tmp_path, make.config("qwen2")).config
    metadata = {
        "general.file_type": 7,
        "quantize.imatrix.file": "imatrix.dat",
        "mradermacher.quantize_version": "2",
        "qwen2.rope.scaling.finetuned": True,
        "qwen2.expert_count": 0,
        "qwen2.attention.head_count": [4] * 4,
        "qwen2.rope.dimension_count": 64,
        "qwen2.attention.sliding_window": 32768,
    }
    assert changed(metadata)(tmp_path).config == plain


def test_tensors_that_the_family_does_not_have_are_refused(tmp_path: Path) -> None:
    for name in ("blk.0.attn_output.bias", "blk.01.attn_q.weight", "cls.output.weight", "blk.0.attn_q_norm.weight"):
        with pytest.raises(UnsupportedError, match=f"a tensor is unknown in the architecture qwen2, first {name}"):
            opened(tmp_path, make.config("qwen2"), add={name: torch.ones(32)})


def test_a_missing_tensor_is_named_when_the_model_is_loaded(tmp_path: Path) -> None:
    values = make.config("qwen2")
    tensors = tiny.weights(values)
    del tensors["model.layers.2.mlp.up_proj.weight"]
    found = opened(tmp_path, values, tensors=tensors)
    with pytest.raises(CheckpointError, match=r"model\.layers\.2\.mlp\.up_proj\.weight"):
        found.load()
    del tensors["model.embed_tokens.weight"]
    with pytest.raises(CheckpointError, match=r"has no tensor token_embd\.weight; it is incomplete: fetch it again"):
        opened(tmp_path, values, tensors=tensors)


def test_an_embedding_model_has_its_pooling(tmp_path: Path) -> None:
    found = opened(tmp_path, make.config("qwen2"), metadata={"qwen2.pooling_type": 3, "qwen2.attention.causal": False})
    assert (found.task, found.config.causal) == ("feature-extraction", False)
    assert json.loads((found.folder / "1_Pooling" / "config.json").read_text()) == {"pooling_mode": "lasttoken"}


def test_a_float32_is_read_as_the_decimal_that_it_stands_for(tmp_path: Path) -> None:
    found = opened(tmp_path, make.config("qwen2")).config
    assert found.rms_norm_eps == 1e-6 != float(np.float32(1e-6))
