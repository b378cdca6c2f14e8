"""The outputs of an artifact whose quantized weights are multiplied by float activations, as WebAssembly does it.

The graph asks for int8 activations (``accuracy_level`` 4), and ONNX Runtime takes them for the matrix multiplications
that it finds in a graph of target standard too. Its kernels for WebAssembly have no such path.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from intaglio.artifact import read_manifest

from .runners.onnxruntime import Artifact, run


def float_outputs(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the runner of ONNX Runtime gives for a case, with float activations."""
    folder = Path(fields["artifact"])
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = float_session(folder / read_manifest(folder).graph, options)
    return run(dict(fields), Artifact(folder, session))


def float_session(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    """Open a graph whose quantized weights are multiplied by float activations; ``options`` get what that needs."""
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 0
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
