"""Subgraphs of an artifact compute what the source computes, and leave no files behind."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from intaglio.artifact import read_manifest
from intaglio.errors import ArtifactError
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.loading.layerwise import Layerwise
from intaglio.models.rope import RotaryEmbedding
from intaglio.parity.locate.artifact_graph import CUT, ArtifactGraph
from intaglio.parity.locate.graph_inputs import graph_inputs, prompt_inputs
from intaglio.parity.locate.layer_errors import layer_errors
from intaglio.parity.locate.scenarios import scenarios
from intaglio.parity.locate.source_run import SourceRun
from intaglio.parity.locate.taps import HIDDEN
from intaglio.tests.files.artifact_files import contents, graph_of

from ..artifacts import Base, Pair, Shelf

TOKENS = torch.randint(3, 288, (1, 30), generator=torch.Generator().manual_seed(0))
TARGETS = [(family, target) for family in ("qwen2", "exaone4") for target in ("ort", "standard")]
ROUNDING = 5e-6


def opened(pair: Pair) -> tuple[ArtifactGraph, Layerwise]:
    source = Layerwise(Checkpoint(pair.checkpoint))
    return ArtifactGraph(pair.artifact, read_manifest(pair.artifact), source.config, threads=1), source


def files(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents(folder).items()}


@pytest.mark.parametrize(("family", "target"), TARGETS)
def test_errors_behind_every_layer(shelf: Shelf, family: str, target: str) -> None:
    pair = shelf.pair(Base(family, target=target))
    before = files(pair.artifact)
    _, source = opened(pair)
    errors = layer_errors(pair.artifact, read_manifest(pair.artifact), source, TOKENS, threads=1)
    layers = [f"model.layers.{index}" for index in range(4)]
    assert [error.module for error in errors] == ["model.embed_tokens", *layers, "model.norm"]
    assert errors[0].error == 0
    assert all(0 < error.error < ROUNDING for error in errors[1:])
    assert files(pair.artifact) == before


def test_errors_of_four_bits(shelf: Shelf) -> None:
    options = {"method": "rtn"}
    pair = shelf.pair(Base("qwen2", precision="int4", target="standard", options=options, trained="tiny-qwen2"))
    _, source = opened(pair)
    errors = layer_errors(pair.artifact, read_manifest(pair.artifact), source, TOKENS, threads=1)
    assert len(errors) == source.config.num_hidden_layers + 2
    assert all(0.01 < error.error < 0.5 for error in errors)


def test_a_batch(shelf: Shelf) -> None:
    pair = shelf.pair(Base("qwen2"))
    _, source = opened(pair)
    errors = layer_errors(pair.artifact, read_manifest(pair.artifact), source, TOKENS.view(3, 10), threads=1)
    assert all(error.error < ROUNDING for error in errors)


def test_a_precision_that_the_cpu_lacks(shelf: Shelf) -> None:
    pair = shelf.pair(Base("qwen2"))
    manifest = read_manifest(pair.artifact)
    _, source = opened(pair)
    manifest = replace(manifest, model=replace(manifest.model, cache_dtype="bfloat16"))
    assert layer_errors(pair.artifact, manifest, source, TOKENS) == ()


@pytest.mark.parametrize(
    ("family", "task", "target"),
    [
        ("qwen2", "text-classification", "ort"),
        ("exaone4", "token-classification", "standard"),
        ("exaone4", "question-answering", "ort"),
        ("qwen2", "feature-extraction", "ort"),
        *((family, "text-generation", target) for family, target in TARGETS),
    ],
)
def test_every_tap_is_found(shelf: Shelf, family: str, task: str, target: str) -> None:
    artifact, source = opened(shelf.pair(Base(family, task, target=target)))
    tap_map = artifact.tap_map
    assert len(tap_map.layers) == source.config.num_hidden_layers
    for index, layer in enumerate(tap_map.layers):
        assert set(layer) == {HIDDEN, *(tap.key for tap in tap_map.taps(index))}
        assert not any(graph_tap.missing for graph_tap in layer.values())
        for key, graph_tap in layer.items():
            known = (tap_map.path(index, key), tap_map.path(index, "self_attn.qkv_proj"), tap_map.trunk)
            assert (graph_tap.node.name or "").startswith(known)
    assert tap_map.embedding is not None
    assert tap_map.norm is not None


@pytest.mark.parametrize(("family", "target"), TARGETS)
def test_a_subgraph_of_one_layer(shelf: Shelf, family: str, target: str) -> None:
    """Given a layer's input, its taps are the source's, and no weights of other layers are read."""
    artifact, source = opened(shelf.pair(Base(family, target=target)))
    graph_taps = artifact.tap_map.layers[2]
    taps = [tap for tap in artifact.tap_map.taps(2) if graph_taps[tap.key].columns is None]
    wanted = list(dict.fromkeys(graph_taps[tap.key].value for tap in taps))
    subgraph = artifact.subgraph(wanted, [graph_taps[HIDDEN].value])
    assert f"{CUT}{graph_taps[HIDDEN].value.name}" in subgraph.inputs
    assert {name.split(".")[2] for name in subgraph.weights if ".layers." in name} <= {"2", "3"}  # 3's norm adds

    layer, rotary = source.layer(2), RotaryEmbedding(source.config.rope, source.config.head_dim)
    with torch.inference_mode():
        for scenario in scenarios(TOKENS, artifact.manifest):
            past_hidden, hidden = (torch.randn(*ids.shape, 64) for ids in (scenario.past_ids, scenario.ids))
            run = SourceRun(scenario, rotary, past_hidden, hidden)
            layer_run = run.advance(layer, artifact.tap_map.taps(2))
            inputs = graph_inputs(scenario, artifact.manifest, {2: layer_run.past})
            results = subgraph.run(inputs, {graph_taps[HIDDEN].value: layer_run.hidden}, wanted)
            for tap in taps:
                actual = results[wanted.index(graph_taps[tap.key].value)][scenario.unpadded]
                expected = layer_run.activations[tap.key][scenario.unpadded]
                torch.testing.assert_close(actual, expected, atol=5e-5, rtol=1e-4)


def test_a_given_activation_replaces_the_computed_one(shelf: Shelf) -> None:
    artifact, _ = opened(shelf.pair(Base("exaone4")))
    graph_taps = artifact.tap_map.layers[0]
    given, wanted = graph_taps["self_attn.o_proj"].value, graph_taps["post_attention_layernorm"].value
    subgraph = artifact.subgraph([given, wanted], [given])
    zeros = torch.zeros(1, TOKENS.shape[1], 64)
    computed, normed = subgraph.run(prompt_inputs(artifact.manifest, TOKENS), {given: zeros}, [given, wanted])
    assert computed.abs().max() > 0
    assert normed.abs().max() == 0


def test_a_damaged_graph(shelf: Shelf, tmp_path: Path) -> None:
    pair = shelf.copy(Base("qwen2"), tmp_path / "artifact")
    graph_of(pair.artifact).write_bytes(b"not a protobuf")
    with pytest.raises(ArtifactError, match=r"model.onnx cannot be read .*; check it with `intaglio verify`"):
        opened(pair)


def test_a_subgraph_that_does_not_run(shelf: Shelf) -> None:
    artifact, _ = opened(shelf.pair(Base("qwen2")))
    norm = artifact.tap_map.norm
    assert norm is not None
    inputs = prompt_inputs(artifact.manifest, TOKENS) | {"attention_mask": np.zeros((1, 3), np.int64)}
    with pytest.raises(ArtifactError, match=r"model.onnx: ONNX Runtime cannot run it \(.*export the model again"):
        artifact.subgraph([norm.value]).run(inputs, {}, [norm.value])
