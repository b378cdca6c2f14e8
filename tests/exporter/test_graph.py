"""The content of the graphs: operators, names, stored weights."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from intaglio.artifact import Target, read_manifest, verify
from intaglio.exporter import export, trace
from intaglio.tests import tiny
from intaglio.tests.exporter import drive
from intaglio.tests.files.artifact_files import graph_of

MICROSOFT = "com.microsoft::"


Exported = Callable[..., Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """``exported(config, target)``: an artifact, made once for all tests that ask for it."""
    made: dict[str, Path] = {}

    def get(values: dict[str, Any], target: Target = "ort") -> Path:
        key = f"{target} {values}"
        if key not in made:
            place = tmp_path_factory.mktemp("exported")
            export(tiny.write(place / "checkpoint", values), place / "out", target=target)
            made[key] = place / "out"
        return made[key]

    return get


def test_qwen2_for_onnx_runtime(exported: Exported) -> None:
    manifest = read_manifest(exported(tiny.config("qwen2")))
    counts = Counter(manifest.operators)
    assert counts[MICROSOFT + "GroupQueryAttention"] == 4
    assert counts[MICROSOFT + "SkipSimplifiedLayerNormalization"] == 8  # every norm but the first follows a residual
    assert counts["SimplifiedLayerNormalization"] == 1
    assert counts["MatMul"] == 4 * 5  # packed q/k/v, o, gate, up, down
    assert counts["Transpose"] == counts["Reshape"] == 0
    packed = manifest.tensors["model.layers.1.self_attn.qkv_proj.weight"]
    assert packed.shape == (64, 64 + 32 + 32)
    assert packed.sources == tuple(f"model.layers.1.self_attn.{name}_proj.weight" for name in "qkv")
    assert sum(manifest.operators.values()) < 80


def test_exaone4_for_onnx_runtime(exported: Exported) -> None:
    out = exported(tiny.config("exaone4"))
    counts = Counter(read_manifest(out).operators)
    assert counts[MICROSOFT + "GroupQueryAttention"] == 4
    assert counts["SimplifiedLayerNormalization"] == 4 * 4  # q, k, and the norms of both branches
    assert counts[MICROSOFT + "SkipSimplifiedLayerNormalization"] == 1  # the last residual and the final norm
    assert counts["MatMul"] == 4 * 7
    attention = [node for node in ir.load(graph_of(out)).graph if node.op_type == "GroupQueryAttention"]
    windows = [node.attributes["local_window_size"].as_int() for node in attention]
    rotates = [node.attributes["do_rotary"].as_int() for node in attention]
    assert (windows, rotates) == ([6, 6, 6, -1], [1, 1, 1, 0])


@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
def test_standard_target_has_no_other_domain_and_passes_the_checker(exported: Exported, family: str) -> None:
    out = exported(tiny.config(family), "standard")
    onnx.checker.check_model(graph_of(out), full_check=True)
    model = onnx.load(graph_of(out), load_external_data=False)
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {("", 24)}
    assert model.ir_version <= 13
    assert Counter(read_manifest(out).operators)["Attention"] == 4


@pytest.mark.parametrize("target", ["ort", "standard"])
def test_interface(exported: Exported, target: Target) -> None:
    model = ir.load(graph_of(exported(tiny.config("qwen2"), target)))
    past = [f"{i}.{part}" for i in range(4) for part in ("key", "value")]
    names = ["input_ids", "attention_mask", *(f"past_key_values.{p}" for p in past), "logits_to_keep"]
    assert [value.name for value in model.graph.inputs] == names
    assert [value.name for value in model.graph.outputs] == ["logits", *(f"present.{p}" for p in past)]
    assert [str(d) for d in model.graph.inputs[2].shape or ()] == ["batch_size", "2", "past_sequence", "16"]
    assert [str(d) for d in model.graph.outputs[0].shape or ()] == ["batch_size", "sequence * 1", "288"]


@pytest.mark.parametrize("target", ["ort", "standard"])
def test_interface_of_a_head(exported: Exported, target: Target) -> None:
    graph = ir.load(graph_of(exported(tiny.config("qwen2", "question-answering"), target))).graph
    dims = {value.name: [str(dim) for dim in value.shape or ()] for value in (*graph.inputs, *graph.outputs)}
    names = ("input_ids", "attention_mask", "start_logits", "end_logits")
    assert dims == {name: ["batch_size", "sequence"] for name in names}


def test_all_positions_unless_fewer_are_asked_for(exported: Exported) -> None:
    graph = drive.CachedGraph(exported(tiny.config("qwen2")))
    feeds = {"input_ids": np.ones((2, 5), np.int64), "attention_mask": np.ones((2, 5), np.int64)}
    feeds |= {v.name: np.zeros((2, 2, 0, 16), np.float32) for v in graph.session.get_inputs() if "past" in v.name}
    every = drive.run(graph.session, feeds | {"logits_to_keep": np.array([0])}, ["logits"])[0]
    assert every.shape == (2, 5, 288)
    np.testing.assert_array_equal(drive.run(graph.session, feeds, ["logits"])[0], every)
    np.testing.assert_array_equal(
        drive.run(graph.session, feeds | {"logits_to_keep": np.array([3])}, ["logits"])[0], every[:, -3:]
    )


@pytest.mark.parametrize("target", ["ort", "standard"])
def test_tied_embeddings_are_stored_once(exported: Exported, target: Target) -> None:
    sizes = {}
    for tied in (True, False):
        out = exported(tiny.config("qwen2", tie_word_embeddings=tied), target)
        manifest = read_manifest(out)
        sizes[tied] = manifest.files[manifest.data].size
        assert ("lm_head.weight" in manifest.tensors) is not tied
        assert manifest.tensors["model.embed_tokens.weight"].shape == (288, 64)
        assert graph_of(out).stat().st_size < 200_000
    assert sizes[False] - sizes[True] >= 288 * 64 * 4


def test_names_are_module_paths(exported: Exported) -> None:
    out = exported(tiny.config("qwen2"))
    nodes = {node.name: node for node in ir.load(graph_of(out)).graph}
    assert (
        nodes["model.layers.3.mlp.down_proj/MatMul"].metadata_props["intaglio.module"] == "model.layers.3.mlp.down_proj"
    )
    assert "model.layers.2.self_attn/GroupQueryAttention" in nodes
    content = graph_of(out).read_bytes()
    assert b".py" not in content  # torch leaves stack traces, with the paths of this machine
    assert b"head." not in content.replace(b"lm_head.", b"")


def test_weights_are_aligned_to_pages(exported: Exported) -> None:
    out = exported(tiny.config("exaone4"))
    values = ir.load(graph_of(out)).graph.initializers.values()
    offsets = [v.const_value.offset for v in values if isinstance(v.const_value, ir.ExternalTensor)]
    assert len(offsets) == len(read_manifest(out).tensors)
    assert all(offset is not None and offset % 4096 == 0 for offset in offsets)
    assert verify(out) == []


SIX = {"num_hidden_layers": 6, "layer_types": tiny.ABSENT}
LAST_SLIDE = SIX | {"use_sliding_window": True, "max_window_layers": 3}
ALTERNATING = SIX | {"layer_types": ["full_attention", "sliding_attention"] * 3}
CASES = [
    ("qwen2", LAST_SLIDE, "ort"),
    ("exaone4", SIX | {"sliding_window_pattern": "LLG"}, "standard"),
    pytest.param("exaone4", SIX | {"sliding_window_pattern": "LLG"}, "ort", marks=pytest.mark.slow),
    pytest.param("qwen2", SIX, "ort", marks=pytest.mark.slow),
    pytest.param("qwen2", LAST_SLIDE, "standard", marks=pytest.mark.slow),
    pytest.param("exaone4", ALTERNATING, "ort", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("family", "changes", "target"), CASES)
def test_repeated_layers_equal_a_trace_of_every_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, changes: dict[str, Any], target: Target
) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config(family, **changes))
    export(folder, tmp_path / "repeated", target=target)
    monkeypatch.setattr(trace, "_shallow", lambda config: (config, list(range(config.num_hidden_layers))))
    export(folder, tmp_path / "whole", target=target)
    repeated, whole = (_description(ir.load(graph_of(tmp_path / name))) for name in ("repeated", "whole"))
    assert repeated == whole
    assert len(whole) > 60


def _description(model: ir.Model) -> list[object]:
    """Return every node with its attributes and the names of its inputs and outputs; constants by value."""
    constants = {
        v.name: v.const_value.numpy().tolist()
        for v in model.graph.initializers.values()
        if v.name is not None and v.name.startswith("constant_") and v.const_value is not None
    }
    return [
        (
            node.domain,
            node.name,
            sorted((key, str(attribute.value)) for key, attribute in node.attributes.items()),
            [None if v is None else str(constants.get(v.name or "", v.name)) for v in node.inputs],
            [v.name for v in node.outputs],
        )
        for node in model.graph
    ]
