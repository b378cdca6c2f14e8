"""The files of an artifact: those of the graph and of the weights, all of them, and those of an older format."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from intaglio.artifact import MANIFEST, Manifest, read_manifest
from intaglio.contract import LOGITS_TO_KEEP
from onnx import numpy_helper


def graph_of(folder: Path) -> Path:
    """Return the path of the artifact's graph."""
    return folder / read_manifest(folder).graph


def data_of(folder: Path) -> Path:
    """Return the path of the artifact's weights."""
    return folder / read_manifest(folder).data


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder by their names relative to it."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest; the graph and the weights get the names that it gives them."""
    before = read_manifest(folder)
    names = {before.graph: manifest.graph, before.data: manifest.data}
    for old, new in names.items():
        if old in before.files:
            (folder / old).rename(folder / new)
    files = {names.get(name, name): entry for name, entry in manifest.files.items()}
    (folder / MANIFEST).write_text(replace(manifest, files=files).to_json(), encoding="utf-8")


def rearrange_as_format_2(folder: Path) -> None:
    """Turn an artifact into one of format version 2, as the exporter wrote it then."""
    values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    graph, data = graph_of(folder), data_of(folder)
    model = onnx.load(graph, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "model.onnx.data"
        if tensor.name == LOGITS_TO_KEEP:
            tensor.CopyFrom(numpy_helper.from_array(np.array([1]), LOGITS_TO_KEEP))
    for value in (*model.graph.input, *model.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if first.dim_param:
            first.dim_param = "batch"
    onnx.save(model, folder / "model.onnx")
    data.rename(folder / "model.onnx.data")
    graph.unlink()
    graph.parent.rmdir()
    (folder / "genai_config.json").unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config.pop("transformers.js_config", None)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    values["format_version"] = 2
    values["files"] = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        for name, content in contents(folder).items()
        if name != MANIFEST
    }
    (folder / MANIFEST).write_text(json.dumps(values, indent=2), encoding="utf-8")
