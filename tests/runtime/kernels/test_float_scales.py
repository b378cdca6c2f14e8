"""Weights whose scales float16 does not hold, such as GGUF's Q6_K, run on intaglio's kernels like the others."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from intaglio.exporter import export
from intaglio.tests.files.artifact_files import graph_of
from onnx import TensorProto

from .test_matmul import first_logits, needs_kernels, opened


@needs_kernels
def test_a_gguf_of_q6_k_runs_on_intaglios_kernels(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from intaglio.tests.inputs.formats.gguf import write

    export(write(tmp_path, "qwen2", "Q6_K"), tmp_path / "out")
    stored = {tensor.name: tensor.data_type for tensor in graph_initializers(tmp_path / "out")}
    assert TensorProto.FLOAT in {type for name, type in stored.items() if name.endswith(".scales")}
    ours, theirs = opened(tmp_path / "out"), opened(tmp_path / "out", kernels="onnxruntime")
    assert "MatMulNBits" in ours.session.intaglio_kernels
    tokens = np.arange(5, 45, dtype=np.int64)[None]
    found, wanted = (first_logits(model, tokens) for model in (ours, theirs))
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


def graph_initializers(folder: Path) -> list[TensorProto]:
    return list(onnx.load(graph_of(folder), load_external_data=False).graph.initializer)
