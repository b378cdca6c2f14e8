"""Optimizers of ONNX graphs on an artifact: how far they move the logits, and which inputs and operators they remove.

python tools.py REQUEST RESULT, where REQUEST has the artifact's ``folder``, and RESULT gets an object for each tool.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import onnxscript.optimizer
import onnxsim  # pyright: ignore[reportMissingImports]
import onnxslim  # pyright: ignore[reportMissingImports]

TOKENS = 24


def logits(path: Path) -> Any:
    """Return the logits of a fixed prompt."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds: dict[str, Any] = {
        "input_ids": np.arange(1, TOKENS + 1)[None],
        "attention_mask": np.ones((1, TOKENS), np.int64),
    }
    for value in session.get_inputs():
        if value.name.startswith("past_key_values."):
            feeds[value.name] = np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
    return session.run(["logits"], feeds)[0]


def contents(path: Path) -> tuple[set[str], set[str]]:
    """Return the names of a graph's inputs, optional ones too, and of its nodes."""
    graph = onnx.load(path, load_external_data=False).graph
    return {value.name for value in graph.input}, {node.name for node in graph.node}


def saved_again(path: Path, target: Path) -> None:
    ir.save(ir.load(path), target, external_data="data")


def optimized(path: Path, target: Path) -> None:
    model = ir.load(path)
    onnxscript.optimizer.optimize_ir(model)
    ir.save(model, target, external_data="data")


def slimmed(path: Path, target: Path) -> None:
    onnx.save(onnxslim.slim(str(path)), target, save_as_external_data=True, location="data")


def simplified(path: Path, target: Path) -> None:
    model, whole = onnxsim.simplify(onnx.load(path))
    assert whole, "onnxsim's own check failed"
    onnx.save(model, target, save_as_external_data=True, location="data")


def with_float_activations(path: Path, target: Path) -> None:
    """Write the graph with products in float, where int8 activations would round differences up."""
    model = ir.load(path)
    for node in model.graph:
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 0)
    ir.save(model, target, external_data="data")


TOOLS: dict[str, Callable[[Path, Path], None]] = {
    "onnx_ir": saved_again,
    "onnxscript": optimized,
    "onnxslim": slimmed,
    "onnxsim": simplified,
}


def compare(path: Path, scratch: Path) -> dict[str, Any]:
    """Run every tool on a graph."""
    expected, (inputs, nodes) = logits(path), contents(path)
    found = {}
    for name, tool in TOOLS.items():
        folder = scratch / name
        folder.mkdir(parents=True)
        tool(path, folder / "model.onnx")
        output, (left, kept) = logits(folder / "model.onnx"), contents(folder / "model.onnx")
        found[name] = {
            "difference": float(np.abs(output - expected).max()),
            "lost_inputs": sorted(inputs - left),
            "lost_nodes": sorted(nodes - kept),
        }
    return found


def main() -> None:
    request, result = map(Path, sys.argv[1:])
    (path,) = (Path(json.loads(request.read_text())["folder"]) / "onnx").glob("*.onnx")
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        (scratch / "float").mkdir()
        with_float_activations(path, scratch / "float" / "model.onnx")
        found = {
            "as it is": compare(path, scratch / "a"),
            "float activations": compare(scratch / "float" / "model.onnx", scratch / "b"),
        }
    result.write_text(json.dumps(found))


main()
