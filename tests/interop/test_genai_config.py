"""genai_config.json agrees with the manifest, the graph and the settings of generation. No other runtime is needed."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from intaglio.artifact import ModelFacts, Target, read_manifest
from intaglio.devices.libraries import GENAI_CONFIG as FILE
from intaglio.exporter import export
from intaglio.exporter.companions.genai_config import genai_config
from intaglio.files.generation_settings import checkpoint_settings
from intaglio.tests import tiny

FACTS = ModelFacts(288, 64, 2, 4, 2, 16, (None, None), 128, "float32", pad_token_id=0)


def names(template: str, layers: int) -> list[str]:
    return [template % layer for layer in range(layers)]


@pytest.mark.parametrize(("family", "target"), [("qwen2", "ort"), ("exaone4", "standard")])
def test_the_file_of_an_export_agrees_with_its_manifest_and_its_graph(
    tmp_path: Path, family: str, target: Target
) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config(family), tokenizer=True)
    out = tmp_path / "out"
    manifest = export(folder, out, target=target)
    found = json.loads((out / FILE).read_text())
    model, decoder = found["model"], found["model"]["decoder"]
    facts = manifest.model
    assert FILE in read_manifest(out).files
    assert model["type"] == {"qwen2": "qwen2", "exaone4": "decoder"}[family]
    assert (model["vocab_size"], model["context_length"]) == (facts.vocab_size, facts.context_length)
    assert model["eos_token_id"] == list(checkpoint_settings(out, facts.vocab_size).end_tokens) == [2]
    assert (model["pad_token_id"], model["bos_token_id"]) == (0, 1)
    assert decoder["filename"] == manifest.graph
    assert decoder["head_size"] == facts.head_dim
    for name in ("hidden_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers"):
        assert decoder[name] == getattr(facts, name)
    # Caches of sliding windows are as long as the others: sliding_window is for graphs whose nodes evict.
    assert "sliding_window" not in decoder
    assert found["search"]["past_present_share_buffer"] == (target == "ort")

    graph = onnx.load(out / decoder["filename"], load_external_data=False).graph
    inputs, outputs = decoder["inputs"], decoder["outputs"]
    keys, values = (names(inputs[f"past_{part}_names"], facts.num_hidden_layers) for part in ("key", "value"))
    given = {inputs["input_ids"], inputs["attention_mask"], *keys, *values}
    assert {value.name for value in graph.input} - given == {"logits_to_keep"}
    assert {value.name for value in graph.initializer} > {"logits_to_keep"}  # optional, so that genai need not give it
    keys, values = (names(outputs[f"present_{part}_names"], facts.num_hidden_layers) for part in ("key", "value"))
    assert {value.name for value in graph.output} == {outputs["logits"], *keys, *values}
    logits = graph.output[0].type.tensor_type
    assert (graph.output[0].name, logits.elem_type) == ("logits", onnx.TensorProto.FLOAT)
    assert logits.shape.dim[2].dim_value == model["vocab_size"]


def test_tasks_without_text_have_no_file(tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config("qwen2", "text-classification"))
    manifest = export(folder, tmp_path / "out")
    assert FILE not in manifest.files
    assert not (tmp_path / "out" / FILE).exists()


def test_a_graph_whose_every_input_must_be_given_has_no_file(tmp_path: Path) -> None:
    """OpenVINO takes no input with a default, and genai gives no logits_to_keep."""
    folder = tiny.write(tmp_path / "checkpoint", tiny.config("qwen2"), tokenizer=True)
    assert FILE not in export(folder, tmp_path / "out", device="openvino").files


def written(folder: Path, config: dict[str, Any], settings: dict[str, Any] | None, target: Target = "ort") -> Any:
    """Return the object for these files of a checkpoint; no generation_config.json for None."""
    (folder / "config.json").write_text(json.dumps(config))
    if settings is not None:
        (folder / "generation_config.json").write_text(json.dumps(settings))
    return json.loads(genai_config(folder, FACTS, "qwen2", target, "onnx/model.onnx"))


@pytest.mark.parametrize(
    ("config", "settings", "expected"),
    [
        ({"eos_token_id": 2, "pad_token_id": 0}, None, {"eos_token_id": [2], "pad_token_id": 0}),
        ({"eos_token_id": 2}, {"eos_token_id": [5, 2, 999], "pad_token_id": 7}, {"eos_token_id": [5, 2]}),
        ({"pad_token_id": 0}, {"eos_token_id": 5, "pad_token_id": 7}, {"eos_token_id": [5], "pad_token_id": 7}),
        ({"bos_token_id": 3}, {"eos_token_id": 5, "bos_token_id": None}, {"bos_token_id": 3, "pad_token_id": 5}),
        ({"pad_token_id": -1, "bos_token_id": 288}, {"eos_token_id": 5}, {"bos_token_id": None, "pad_token_id": 5}),
        ({}, {}, {"eos_token_id": [287], "pad_token_id": 287}),  # genai's defaults are 0, which is a token of texts
    ],
)
def test_ids_are_those_of_the_checkpoint_and_in_the_vocabulary(
    tmp_path: Path, config: dict[str, Any], settings: dict[str, Any] | None, expected: dict[str, Any]
) -> None:
    model = written(tmp_path, config, settings)["model"]
    assert {name: model.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"do_sample": False, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_length": 128}),
        ({"do_sample": True}, {"do_sample": True, "temperature": 1.0, "top_k": 0}),  # genai's own top_k is 50
        (
            {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05},
            {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05},
        ),
        ({"do_sample": True, "top_k": 10_000}, {"top_k": 288}),  # genai refuses more than the vocabulary
        ({"do_sample": True, "temperature": 0.0}, {"do_sample": False, "temperature": 1.0}),
        ({"temperature": 0.7}, {"do_sample": False, "temperature": 1.0}),
        ({"max_length": 40, "min_length": 4}, {"max_length": 40, "min_length": 4}),
        ({"max_length": 4096}, {"max_length": 128}),
        ({"num_beams": 3, "length_penalty": 0.5}, {"num_beams": 3, "length_penalty": 0.5, "early_stopping": False}),
        ({"num_beams": 3, "early_stopping": True, "no_repeat_ngram_size": 2}, {"early_stopping": True}),
    ],
)
def test_settings_of_generation_are_those_of_the_search(
    tmp_path: Path, settings: dict[str, Any], expected: dict[str, Any]
) -> None:
    search = written(tmp_path, {"eos_token_id": 2}, settings)["search"]
    assert {name: search[name] for name in expected} == expected
