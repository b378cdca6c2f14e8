"""Quantization from end to end: reproducible bytes, also after interruptions; every head; kept weights."""

import json
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from intaglio.artifact import Manifest, TensorEntry, read_manifest, verify
from intaglio.exporter import QuantizeOptions, export, quantize
from intaglio.exporter.quantize.formats.weight import SCALES, QuantizedWeight
from intaglio.exporter.quantize.prepare import prepare
from intaglio.exporter.weights import Write
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests import tiny
from intaglio.tests.exporter import drive
from intaglio.tests.files.artifact_files import contents, data_of, graph_of

FEW = QuantizeOptions(windows=4)


def write(folder: Path, family: str = "qwen2", task: str = "text-generation", **changes: Any) -> Path:
    layers = changes.pop("num_hidden_layers", 2)
    if family == "exaone4":
        changes |= {"layer_types": ["sliding_attention"] * (layers - 1) + ["full_attention"]}
    return tiny.write(folder, tiny.config(family, task, num_hidden_layers=layers, **changes), tokenizer=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "checkpoint")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("options", [FEW, QuantizeOptions("rtn")], ids=["mix and gptq", "rtn"])
@pytest.mark.quick_one_in(2)  # tests/exporter/test_write.py compares what has no calibration
@pytest.mark.traces_anew
def test_the_same_source_gives_the_same_bytes(folder: Path, options: QuantizeOptions) -> None:
    for name in ("one", "two"):
        quantize(folder, folder.parent / name, options=options)
    assert contents(folder.parent / "one") == contents(folder.parent / "two")
    assert verify(folder.parent / "one") == []


def test_export_quantizes_with_the_defaults(folder: Path) -> None:
    export(folder, folder.parent / "one", precision="int8")
    quantize(folder, folder.parent / "two", precision="int8")
    assert contents(folder.parent / "one") == contents(folder.parent / "two")


@pytest.mark.parametrize(
    ("family", "target", "precision"),
    [("qwen2", "ort", "int4"), ("exaone4", "ort", "int8"), ("qwen2", "standard", "int8")],
)
def test_an_unquantized_artifact_quantizes_as_its_checkpoint_does(
    tmp_path: Path, family: str, target: Any, precision: Any
) -> None:
    folder = write(tmp_path / "checkpoint", family, num_hidden_layers=1)
    export(folder, tmp_path / "artifact", target=target)
    options = FEW if precision == "int4" else None
    quantize(folder, tmp_path / "one", precision=precision, options=options)
    quantize(tmp_path / "artifact", tmp_path / "two", precision=precision, options=options)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("family", ["qwen2", pytest.param("exaone4", marks=pytest.mark.slow)])
@pytest.mark.parametrize("task", tiny.SUFFIXES)
def test_every_head_quantizes_and_its_own_projection_stays_in_float(tmp_path: Path, family: str, task: str) -> None:
    folder = write(tmp_path / "checkpoint", family, task, num_hidden_layers=1)
    manifest = quantize(folder, tmp_path / "out", options=FEW)
    assert (manifest.task, manifest.precision) == (task, "int4")
    quantized = {s for entry in manifest.tensors.values() if entry.quantization for s in entry.sources}
    floats = {s for entry in manifest.tensors.values() if not entry.quantization for s in entry.sources}
    matrices = {name for name, shape in tiny.shapes(tiny.config(family, task, num_hidden_layers=1)).items()
                if len(shape) == 2}  # fmt: skip
    heads = {"score.weight", "qa_outputs.weight"} & matrices
    assert quantized == matrices - heads
    assert heads <= floats
    assert len(heads) == (task not in ("text-generation", "feature-extraction"))
    tokens = torch.cat([drive.ids(288, 20, seed) for seed in range(6)])
    if task == "text-generation":
        found = drive.CachedGraph(tmp_path / "out")(tokens, torch.ones_like(tokens)).numpy()
        with torch.inference_mode():
            expected = Checkpoint(folder).load()(tokens).logits.numpy()
    else:
        feeds = {"input_ids": tokens.numpy(), "attention_mask": np.ones((6, 20), np.int64)}
        found = drive.run(drive.session(tmp_path / "out"), feeds)[0]
        with torch.inference_mode():
            output = Checkpoint(folder).load()(tokens)
        first = {"question-answering": "start_logits", "feature-extraction": "last_hidden_state"}.get(task, "logits")
        expected = getattr(output, first).numpy()
    assert found.shape == expected.shape
    # Random weights amplify errors: the outputs are close to the source's, but not equal.
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.8
    assert np.abs(found - expected).max() > 1e-4


def interrupted(folder: Path, out: Path, options: QuantizeOptions, stage: str, share: float) -> None:
    """Quantize, and interrupt once ``share`` of a stage is done."""

    def report(name: str, done: int, total: int) -> None:
        if name == stage and done >= share * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(folder, out, options=options, progress=report)


@pytest.mark.parametrize("stage", ["sensitivity", "calibration", "graph", "weights", "source"])
def test_an_interruption_leaves_nothing(folder: Path, stage: str) -> None:
    interrupted(folder, folder.parent / "new" / "out", FEW, stage, 0.5)
    assert names(folder.parent) == ["checkpoint"]


def progress_of(folder: Path, out: Path, options: QuantizeOptions) -> list[tuple[str, int, int]]:
    """Quantize; return the calls of ``progress``."""
    calls: list[tuple[str, int, int]] = []
    quantize(folder, out, options=options, progress=lambda *call: calls.append(call))
    return calls


def test_a_resumed_run_goes_on_and_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = write(tmp_path / "checkpoint", num_hidden_layers=3)
    options = QuantizeOptions(windows=4, resume=True)
    whole = progress_of(folder, tmp_path / "whole", options)
    assert names(tmp_path) == ["checkpoint", "whole"]
    out = tmp_path / "out"
    for share in (0.2, 0.9):  # in the first layer, when none is finished; in the third, when two are
        interrupted(folder, out, options, "calibration", share)
        assert names(tmp_path) == [".out.intaglio-layers", "checkpoint", "whole"]
    calls = progress_of(folder, out, options)
    done, total = next((done, total) for stage, done, total in calls if stage == "calibration")
    assert done / total > 2 / 3
    assert [call for call in whole if call[0] == "calibration"][-1][1] == total
    assert contents(out) == contents(tmp_path / "whole")
    assert names(tmp_path) == ["checkpoint", "out", "whole"]


@pytest.mark.slow
def test_solved_layers_survive_a_later_interruption(folder: Path) -> None:
    options = QuantizeOptions(windows=4, resume=True)
    quantize(folder, folder.parent / "whole", options=options)
    out = folder.parent / "out"
    interrupted(folder, out, options, "weights", 0.5)
    calls = progress_of(folder, out, options)
    assert "calibration" not in {stage for stage, _, _ in calls}
    assert contents(out) == contents(folder.parent / "whole")


def test_finished_layers_are_kept_in_a_new_folder_too(folder: Path) -> None:
    out = folder.parent / "new" / "out"
    interrupted(folder, out, QuantizeOptions(windows=4, resume=True), "calibration", 0.7)
    assert names(out.parent) == [".out.intaglio-layers"]
    quantize(folder, out, options=QuantizeOptions(windows=4, resume=True))
    assert names(out.parent) == ["out"]


def solved(folder: Path, scratch: Path, options: QuantizeOptions, interrupt: bool = False) -> dict[str, bytes]:
    """Return what GPTQ leaves in ``scratch`` at its end, or when it is interrupted in the second layer."""

    def report(stage: str, done: int, total: int) -> None:
        if interrupt and stage == "calibration" and done >= 0.7 * total:
            raise KeyboardInterrupt

    scratch.mkdir(exist_ok=True)
    with suppress(KeyboardInterrupt):
        prepare(Checkpoint(folder), "text-generation", "ort", "int4", options, scratch, report)
    return contents(scratch)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["block size", "windows", "keep", "weights"])
def test_layers_of_other_options_or_another_checkpoint_are_not_taken_up(folder: Path, change: str) -> None:
    scratch, options = folder.parent / "scratch", replace(FEW, method="gptq")
    assert solved(folder, scratch, options, interrupt=True)
    if change == "weights":
        tiny.write(folder, tiny.config("qwen2", num_hidden_layers=2), seed=1)
    else:
        other: dict[str, Any] = {
            "block size": {"block_size": 64},
            "windows": {"windows": 5},
            "keep": {"keep": {"*.q_proj": "float"}},
        }
        options = replace(options, **other[change])
    fresh = solved(folder, folder.parent / "fresh", options)
    taken_up = solved(folder, scratch, options)
    assert {name: taken_up[name] for name in fresh} == fresh


@pytest.mark.slow
def test_an_interruption_between_two_layers_leaves_the_states_of_one_with_its_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that a resumed run gives the same result after an interruption at any write."""
    options = replace(FEW, method="gptq")
    whole = solved(folder, folder.parent / "whole", options)
    for last in range(3):
        scratch, left = folder.parent / f"scratch{last}", [last]

        def rename(path: Path, target: Path, left: list[int] = left) -> Path:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            path.replace(target)
            return target

        monkeypatch.setattr(Path, "rename", rename)
        solved(folder, scratch, options)
        monkeypatch.undo()
        assert solved(folder, scratch, options) == whole


def test_without_resume_leftovers_of_an_earlier_run_are_removed(folder: Path) -> None:
    out = folder.parent / "out"
    interrupted(folder, out, QuantizeOptions(windows=4, resume=True), "calibration", 0.7)
    interrupted(folder, out, FEW, "sensitivity", 0.5)
    assert names(folder.parent) == ["checkpoint"]


def by_path(manifest: Manifest) -> dict[str, str]:
    return {name.rpartition(".")[0]: entry.precision for name, entry in manifest.tensors.items()
            if entry.sources and len(entry.shape) == 2}  # fmt: skip


def test_keep_is_by_weight_and_takes_a_packed_projection_apart_where_its_parts_differ(folder: Path) -> None:
    keep: dict[str, Any] = {"*.0.self_attn.v_proj": "int8", "*.1.mlp.down_proj": "float", "lm_head": "int8"}
    out = folder.parent / "out"
    manifest = quantize(folder, out, options=QuantizeOptions("rtn", keep=keep))
    found = by_path(manifest)
    first, second = "model.layers.0.self_attn.", "model.layers.1.self_attn."
    assert [found[f"{first}{name}_proj"] for name in "qkv"] == ["int4", "int4", "int8"]
    assert found[f"{second}qkv_proj"] == "int4"
    assert f"{first}qkv_proj" not in found
    assert (found["model.layers.1.mlp.down_proj"], found["model.layers.0.mlp.down_proj"]) == ("fp32", "int4")
    assert (found["lm_head"], found["model.embed_tokens"]) == ("int8", "int4")
    # Three of the first layer and one of the second; gate and up of each; down and o of one or both; the head.
    assert manifest.operators["com.microsoft::MatMulNBits"] == 4 + 4 + 1 + 2 + 1
    tokens = drive.ids(288, 20)
    logits = drive.CachedGraph(out)(tokens, torch.ones_like(tokens))
    assert logits.isfinite().all()


def test_everything_in_float_is_the_float_artifact(folder: Path) -> None:
    manifest = quantize(folder, folder.parent / "out", precision="int8", options=QuantizeOptions(keep={"*": "float"}))
    export(folder, folder.parent / "float")
    assert data_of(folder.parent / "out").read_bytes() == data_of(folder.parent / "float").read_bytes()
    out, plain = (onnx.load(graph_of(folder.parent / name), load_external_data=False) for name in ("out", "float"))
    for tensor in out.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "model.onnx_data"
    for graph in (out, plain):
        del graph.metadata_props[:]  # they name the precision that was asked for
        graph.doc_string = ""
    assert out == plain
    assert not any(entry.quantization for entry in manifest.tensors.values())


@pytest.mark.parametrize("activations", ["fp16", "bf16"])
def test_activations_are_what_the_graph_computes_in(folder: Path, activations: Any) -> None:
    manifest = quantize(folder, folder.parent / "out", options=QuantizeOptions("rtn", activations=activations))
    assert manifest.model.cache_dtype == {"fp16": "float16", "bf16": "bfloat16"}[activations]
    precisions = {name: entry.precision for name, entry in manifest.tensors.items()}
    assert precisions.pop("model.rotary_emb.inv_freq") == "fp32"  # angles are computed from it on loading
    assert activations in precisions.values()
    assert "fp32" not in precisions.values()


@pytest.mark.parametrize(
    "block_size", [16, 32, *(pytest.param(size, marks=pytest.mark.slow) for size in (64, 128)), 256]
)
@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_every_block_size_runs_where_no_row_is_a_multiple_of_it(
    tmp_path: Path, block_size: int, precision: Any
) -> None:
    folder = write(tmp_path / "checkpoint", num_hidden_layers=1, hidden_size=72, head_dim=16, intermediate_size=100)
    manifest = quantize(folder, tmp_path / "out", precision=precision, options=QuantizeOptions("rtn", block_size))
    facts = [entry.quantization for entry in manifest.tensors.values() if entry.quantization]
    assert {found.block_size for found in facts} == {block_size}
    assert all(0 < found.error < (0.25 if precision == "int4" else 0.02) for found in facts)
    tokens = drive.ids(288, 20)
    found = drive.CachedGraph(tmp_path / "out")(tokens, torch.ones_like(tokens))
    with torch.inference_mode():
        expected = Checkpoint(folder).load()(tokens).logits
    assert np.corrcoef(found.numpy().ravel(), expected.numpy().ravel())[0, 1] > (0.7 if precision == "int4" else 0.99)


def test_the_manifest_records_the_scheme_of_every_weight(folder: Path) -> None:
    quantize(folder, folder.parent / "out", options=FEW)
    manifest = read_manifest(folder.parent / "out")
    shapes = tiny.shapes(json.loads((folder / "config.json").read_text()))
    for name, entry in manifest.tensors.items():
        if not entry.quantization:
            continue
        found = entry.quantization
        assert entry.precision == f"int{found.bits}"
        assert entry.shape == (sum(shapes[s][0] for s in entry.sources), shapes[entry.sources[0]][1])
        assert found.kl_estimate is not None
        assert found.kl_estimate > 0
        assert 0 < found.error < 0.3
        assert found.method in ("gptq", "rtn")
        stem = name.removesuffix(".codes")
        parts = {n for n, e in manifest.tensors.items() if n.startswith(f"{stem}.") and not e.sources}
        assert len(parts) == (1 if found.symmetric else 2) + (found.bits == 5)


@pytest.mark.parametrize("target", ["ort", "standard"])
@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_written_weights_are_released(
    folder: Path, monkeypatch: pytest.MonkeyPatch, precision: Any, target: Any
) -> None:
    """The scales of all weights of a 7B are a gigabyte."""
    scales: list[weakref.ref[torch.Tensor]] = []
    kept: list[int] = []
    write_weight = QuantizedWeight.write

    def watched(weight: QuantizedWeight, checkpoint: Checkpoint, write: Write) -> Mapping[str, TensorEntry]:
        kept.append(sum(reference() is not None for reference in scales))

        def note(key: str, piece: torch.Tensor) -> None:
            if key == SCALES:
                scales.append(weakref.ref(piece))
            write(key, piece)

        return write_weight(weight, checkpoint, note)

    monkeypatch.setattr(QuantizedWeight, "write", watched)
    options = QuantizeOptions(method="rtn")
    quantize(folder, folder.parent / "out", precision=precision, target=target, options=options)
    assert len(scales) > 2 * 4  # more than four of each layer
    assert set(kept) <= {0, 1}  # an embedding that is only looked up has its scales at the end
