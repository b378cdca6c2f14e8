"""The instrumented graph: what is exposed is what the source has there, and nothing is left behind."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from intaglio.artifact import GRAPH, read_manifest
from intaglio.errors import ArtifactError
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.layerwise import Layerwise
from intaglio.parity.locate.batches import Trail, batches, feeds
from intaglio.parity.locate.places import HIDDEN
from intaglio.parity.locate.probe import GIVEN, Probe, layer_errors, whole_feeds

from ..artifacts import Base, Pair, Shelf

TOKENS = torch.randint(3, 288, (1, 30), generator=torch.Generator().manual_seed(0))
TARGETS = [(family, target) for family in ("qwen2", "exaone4") for target in ("ort", "standard")]
ROUNDING = 5e-6


def opened(pair: Pair) -> tuple[Probe, Layerwise]:
    stream = Layerwise(Checkpoint(pair.checkpoint))
    return Probe(pair.artifact, read_manifest(pair.artifact), stream.config, threads=1), stream


def files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize(("family", "target"), TARGETS)
def test_errors_behind_every_layer(shelf: Shelf, family: str, target: str) -> None:
    pair = shelf.pair(Base(family, target=target))
    before = files(pair.artifact)
    _, stream = opened(pair)
    errors = layer_errors(pair.artifact, read_manifest(pair.artifact), stream, TOKENS, threads=1)
    layers = [f"model.layers.{index}" for index in range(4)]
    assert [error.module for error in errors] == ["model.embed_tokens", *layers, "model.norm"]
    assert errors[0].error == 0
    assert all(0 < error.error < ROUNDING for error in errors[1:])
    assert files(pair.artifact) == before


def test_errors_of_four_bits(shelf: Shelf) -> None:
    options = {"method": "rtn"}
    pair = shelf.pair(Base("qwen2", precision="int4", target="standard", options=options, trained="tiny-qwen2"))
    _, stream = opened(pair)
    errors = layer_errors(pair.artifact, read_manifest(pair.artifact), stream, TOKENS, threads=1)
    assert len(errors) == stream.config.num_hidden_layers + 2
    assert all(0.01 < error.error < 0.5 for error in errors)


def test_several_rows(shelf: Shelf) -> None:
    pair = shelf.pair(Base("qwen2"))
    _, stream = opened(pair)
    errors = layer_errors(pair.artifact, read_manifest(pair.artifact), stream, TOKENS.view(3, 10), threads=1)
    assert all(error.error < ROUNDING for error in errors)


def test_a_precision_that_the_cpu_lacks(shelf: Shelf) -> None:
    pair = shelf.pair(Base("qwen2"))
    manifest = read_manifest(pair.artifact)
    _, stream = opened(pair)
    manifest = replace(manifest, model=replace(manifest.model, cache_dtype="bfloat16"))
    assert layer_errors(pair.artifact, manifest, stream, TOKENS) == ()


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
def test_every_place_is_found(shelf: Shelf, family: str, task: str, target: str) -> None:
    probe, stream = opened(shelf.pair(Base(family, task, target=target)))
    anatomy = probe.anatomy
    assert len(anatomy.layers) == stream.config.num_hidden_layers
    for index, layer in enumerate(anatomy.layers):
        assert set(layer) == {HIDDEN, *(place.key for place in anatomy.places)}
        assert not any(spot.missing for spot in layer.values())
        for key, spot in layer.items():
            known = (anatomy.path(index, key), anatomy.path(index, "self_attn.qkv_proj"), anatomy.trunk)
            assert (spot.node.name or "").startswith(known)
    assert anatomy.embedding is not None
    assert anatomy.norm is not None


@pytest.mark.parametrize(("family", "target"), TARGETS)
def test_a_cut_piece_is_a_layer_alone(shelf: Shelf, family: str, target: str) -> None:
    """With a layer's input given, its places are the source's, and no weight of another layer is taken."""
    probe, stream = opened(shelf.pair(Base(family, target=target)))
    spots = probe.anatomy.layers[2]
    places = [place for place in probe.anatomy.places if spots[place.key].columns is None]
    wanted = list(dict.fromkeys(spots[place.key].value for place in places))
    piece = probe.piece(wanted, [spots[HIDDEN].value])
    assert f"{GIVEN}{spots[HIDDEN].value.name}" in piece.inputs
    assert {name.split(".")[2] for name in piece.weights if ".layers." in name} <= {"2", "3"}  # the sum is in 3's norm

    layer = stream.layer(2)
    with torch.inference_mode():
        for batch in batches(TOKENS, probe.manifest):
            trail = Trail(
                batch, stream._rotary, torch.randn(*batch.past_ids.shape, 64), torch.randn(*batch.ids.shape, 64)
            )
            step = trail.step(layer, probe.anatomy.places)
            inputs = feeds(batch, probe.manifest, {2: step.past})
            results = piece.run(inputs, {spots[HIDDEN].value: step.hidden}, wanted)
            for place in places:
                found = results[wanted.index(spots[place.key].value)][batch.new]
                torch.testing.assert_close(found, step.values[place.key][batch.new], atol=5e-5, rtol=1e-4)


def test_what_is_given_counts_and_not_what_was_computed(shelf: Shelf) -> None:
    probe, _ = opened(shelf.pair(Base("exaone4")))
    spots = probe.anatomy.layers[0]
    given, wanted = spots["self_attn.o_proj"].value, spots["post_attention_layernorm"].value
    piece = probe.piece([given, wanted], [given])
    zeros = torch.zeros(1, TOKENS.shape[1], 64)
    computed, normed = piece.run(whole_feeds(probe.manifest, TOKENS), {given: zeros}, [given, wanted])
    assert computed.abs().max() > 0
    assert normed.abs().max() == 0


def test_a_damaged_graph(shelf: Shelf, tmp_path: Path) -> None:
    pair = shelf.copy(Base("qwen2"), tmp_path / "artifact")
    (pair.artifact / GRAPH).write_bytes(b"no protobuf")
    with pytest.raises(ArtifactError, match=r"model.onnx cannot be read .*; check it with `intaglio verify`"):
        opened(pair)


def test_a_piece_that_does_not_run(shelf: Shelf) -> None:
    probe, _ = opened(shelf.pair(Base("qwen2")))
    norm = probe.anatomy.norm
    assert norm is not None
    inputs = whole_feeds(probe.manifest, TOKENS) | {"attention_mask": np.zeros((1, 3), np.int64)}
    with pytest.raises(ArtifactError, match=r"model.onnx: ONNX Runtime cannot run it \(.*export the model again"):
        probe.piece([norm.value]).run(inputs, {}, [norm.value])
