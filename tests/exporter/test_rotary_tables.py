"""Tables of cos and sin for GroupQueryAttention: the graph computes them, and ONNX Runtime does so once, on loading.

Rounded correctly, a cosine is within half a step of float32 of the angle's; torch's are within 0.61 and ONNX Runtime's
within 2.4 (of numbers below 1, a step is at most 6e-8), measured over 131,072 positions and theta from 1e4 to 5e6.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from intaglio.artifact import Precision, read_manifest
from intaglio.exporter import export
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.rope import RotaryEmbedding
from intaglio.tests import tiny
from intaglio.tests.files.artifact_files import graph_of
from onnx import numpy_helper

STEPS = 3
"""The tolerance in float32 between torch's numbers and ONNX Runtime's."""

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 16.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LONG = {"max_position_embeddings": 131_072, "num_hidden_layers": 1, "layer_types": tiny.ABSENT}


def loaded(folder: Path, place: Path) -> onnx.ModelProto:
    """Return the graph that ONNX Runtime runs with default options."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.optimized_model_filepath = str(place)
    onnxruntime.InferenceSession(graph_of(folder), options, providers=["CPUExecutionProvider"])
    return onnx.load(place, load_external_data=False)


@pytest.mark.parametrize(
    ("precision", "rope", "changes"),
    [("fp32", {}, {}), ("fp32", YARN, {}), ("fp16", YARN, {}), ("fp32", LLAMA3, LONG)],
    ids=["default", "yarn", "yarn-fp16", "llama3"],
)
def test_tables_are_computed_on_loading(
    tmp_path: Path, precision: Precision, rope: dict[str, Any], changes: dict[str, Any]
) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config("qwen2", rope=rope, **changes))
    export(folder, tmp_path / "out", precision=precision)
    config = Checkpoint(folder).config
    graph = loaded(tmp_path / "out", tmp_path / "loaded.onnx").graph
    assert not {"Range", "Cos", "Sin"} & {node.op_type for node in graph.node}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    (names,) = {tuple(node.input[7:9]) for node in graph.node if node.op_type == "GroupQueryAttention"}
    wanted = RotaryEmbedding(config.rope, config.head_dim).table(config.context_length)
    for name, table in zip(names, wanted, strict=True):
        found = numpy_helper.to_array(constants[name])
        assert found.dtype == (np.float32 if precision == "fp32" else np.float16)
        if precision == "fp32":
            steps = np.abs(found.astype(np.float64) - table.numpy()) / np.spacing(np.abs(table.numpy()))
            assert steps.max() <= STEPS
        else:
            np.testing.assert_allclose(found, table.half().numpy(), rtol=2.0**-10, atol=2.0**-24)


@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
def test_tables_take_no_space_in_the_artifact(tmp_path: Path, family: str) -> None:
    """Check the weights, and the graph, where an optimizer could store folded constants."""
    sizes = []
    for positions in (128, 131_072):
        values = tiny.config(family, max_position_embeddings=positions)
        export(tiny.write(tmp_path / f"{positions}", values), tmp_path / f"out-{positions}")
        manifest = read_manifest(tmp_path / f"out-{positions}")
        assert manifest.model.context_length == positions
        assert [name for name, entry in manifest.tensors.items() if not entry.sources] == ["model.rotary_emb.inv_freq"]
        sizes.append([manifest.files[name].size for name in (manifest.graph, manifest.data)])
    assert sizes[0][1] == sizes[1][1]
    assert abs(sizes[0][0] - sizes[1][0]) < 100
