"""Bytes that a decode step reads: whole matrices, once each, and no embeddings that rows are looked up in."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from intaglio.benchmarks.artifacts.graph_bytes import bytes_of_nodes, onnx_bytes
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def test_shared_and_reshaped_matrices_count_once_and_embeddings_not(tmp_path: Path) -> None:
    values: dict[str, NDArray[Any]] = {
        "embedding": np.zeros((100, 4), np.float32),
        "tied": np.zeros((4, 50), np.float16),
        "shape": np.array([4, 50]),
        "loose": np.zeros(1000, np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["embedding", "ids"], ["h"], "model.embed_tokens/Gather"),
        helper.make_node("Reshape", ["tied", "shape"], ["view"], "Reshape"),
        helper.make_node("MatMul", ["h", "view"], ["logits"], "MatMul"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 50])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    onnx.save(model, tmp_path / "model.onnx")
    assert bytes_of_nodes(model) == {("MatMul", "MatMul"): 4 * 50 * 2}
    assert onnx_bytes(tmp_path / "model.onnx") == 4 * 50 * 2
