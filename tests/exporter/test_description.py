"""What a lone graph file says of itself, and that the tools of ONNX read it."""

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from intaglio import __version__
from intaglio.artifact import MANIFEST, FileEntry, Manifest, Target, Task, read_manifest
from intaglio.contract import LOGITS_TO_KEEP, MODULE_KEY
from intaglio.exporter import export
from intaglio.exporter.lowering.schemas import onnxruntime_schemas
from intaglio.runtime import load
from intaglio.tests import tiny

TASKS: dict[Target, Task] = {"ort": "text-generation", "standard": "question-answering"}


@pytest.fixture(scope="module", params=["ort", "standard"])
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target: Target = request.param
    place = tmp_path_factory.mktemp(target)
    folder = tiny.write(place / "source", tiny.config("qwen2", TASKS[target]), tokenizer=True)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")
    export(folder, place / "out", target=target)
    return place / "out"


def graph_of(artifact: Path) -> tuple[Path, Manifest]:
    manifest = read_manifest(artifact)
    return artifact / manifest.graph, manifest


def test_the_model_says_what_it_is(artifact: Path) -> None:
    path, manifest = graph_of(artifact)
    model = onnx.load(path, load_external_data=False)
    assert (model.producer_name, model.producer_version) == ("intaglio", __version__)
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "intaglio.format_version": str(manifest.format_version),
        "intaglio.family": "qwen2",
        "intaglio.task": manifest.task,
        "intaglio.target": manifest.target,
        "intaglio.precision": "fp32",
        "intaglio.source": "source",
        "intaglio.source_digest": manifest.source.digest,
        "model_license": "apache-2.0",
    }
    assert model.doc_string.startswith(f"source: qwen2 for {manifest.task} in fp32, with ")
    assert [value.name for value in (*model.graph.input, *model.graph.output) if not value.doc_string] == []
    mask = next(value.doc_string for value in model.graph.input if value.name == "attention_mask")
    assert ("on the right" in mask) == (manifest.target == "ort")


def test_every_name_leads_to_a_module_or_an_input(artifact: Path) -> None:
    path, manifest = graph_of(artifact)
    graph = ir.load(path).graph
    inputs = "|".join(re.escape(value.name or "") for value in graph.inputs)
    modules = r"(model|transformer)(\.\w+)*|lm_head|qa_outputs"
    named = re.compile(rf"({modules}|{inputs})/\w+")
    names = [node.name or "" for node in graph]
    assert [name for name in names if not named.fullmatch(name)] == []
    assert len(set(names)) == len(names)
    for node in graph:
        path_of_module = node.metadata_props[MODULE_KEY]
        assert (node.name or "").startswith(f"{path_of_module}/") or (node.name or "").split("/")[0] in inputs
    weights = set(manifest.tensors) | {LOGITS_TO_KEEP}
    assert [name for name in graph.initializers if name not in weights and not name.startswith("constant_")] == []
    head = "lm_head" if manifest.task == "text-generation" else "qa_outputs"
    assert {node.metadata_props[MODULE_KEY] for node in graph if node.outputs[0].is_graph_output()} == {head}


def test_the_checker_and_strict_shape_inference_accept_the_graph(artifact: Path, tmp_path: Path) -> None:
    path, manifest = graph_of(artifact)
    if manifest.target == "ort":
        with pytest.raises(onnx.checker.ValidationError, match="No Op registered for SimplifiedLayerNormalization"):
            onnx.checker.check_model(path, full_check=True)
    with onnxruntime_schemas():
        onnx.checker.check_model(path, full_check=True)
        onnx.shape_inference.infer_shapes_path(
            str(path), str(tmp_path / "inferred.onnx"), check_type=True, strict_mode=True, data_prop=True
        )
    assert not onnx.defs.has("SimplifiedLayerNormalization")


def test_a_graph_that_onnx_ir_loads_and_saves_gives_the_same_tokens(artifact: Path, tmp_path: Path) -> None:
    """Also with other metadata: it is not trusted, and nothing reads it."""
    manifest = read_manifest(artifact)
    if manifest.task != "text-generation":
        pytest.skip("its graph generates no tokens")
    with load(artifact, task="text-generation") as model:
        expected = model.generate([5, 6, 7], max_new_tokens=12, temperature=0.0).token_ids
    copy = tmp_path / "copy"
    shutil.copytree(artifact, copy)
    again = ir.load(copy / manifest.graph)
    again.metadata_props.update({"intaglio.family": "exaone4", "intaglio.format_version": "-1", "": "\0" * 1000})
    again.doc_string = "x" * 100_000
    ir.save(again, copy / manifest.graph)
    saved = (copy / manifest.graph).read_bytes()
    files = {**manifest.files, manifest.graph: FileEntry(hashlib.sha256(saved).hexdigest(), len(saved))}
    (copy / MANIFEST).write_text(replace(manifest, files=files).to_json(), encoding="utf-8")
    with load(copy, task="text-generation") as model:
        assert model.generate([5, 6, 7], max_new_tokens=12, temperature=0.0).token_ids == expected


def test_the_same_checkpoint_gives_the_same_graph(artifact: Path, tmp_path: Path) -> None:
    path, manifest = graph_of(artifact)
    export(artifact.parent / "source", tmp_path / "again", target=manifest.target)
    assert (tmp_path / "again" / manifest.graph).read_bytes() == path.read_bytes()
