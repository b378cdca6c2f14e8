"""Values that a graph computes from its initializers alone, as ONNX Runtime computes them when it loads the graph."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from ...errors import ArtifactError, first_line
from ...runtime.engine.onnxruntime import import_onnxruntime, session_options


def evaluate(model: ir.Model, path: Path, values: Sequence[ir.Value]) -> list[Tensor] | None:
    """Return the numbers of some values in float32; None where they depend on an input of the graph.

    Args:
        path: the graph's file; the weights are beside it.

    Raises:
        ArtifactError: ONNX Runtime cannot compute them.
    """
    try:
        part = ir.convenience.extract(model.graph, [], values)
    except ValueError:
        return None
    for index, value in enumerate(list(part.outputs)):
        # ONNX Runtime has no bfloat16 outputs in NumPy.
        cast = ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT)}, name=f"float32 {index}")
        cast.outputs[0].name, cast.outputs[0].dtype = f"float32 {index}", ir.DataType.FLOAT
        part.append(cast)
        part.outputs[index] = cast.outputs[0]
    ort = import_onnxruntime()
    options = session_options(ort, 1)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent.resolve()))
    data = ir.to_proto(ir.Model(part, ir_version=model.ir_version)).SerializeToString()
    try:
        found = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, {})
    except Exception as error:  # onnxruntime's exceptions have no common class of their own
        names = ", ".join(value.name or "" for value in values)
        raise ArtifactError(
            f"{path}: ONNX Runtime cannot compute {names} ({first_line(error)}); export the model again"
        ) from None
    return [torch.from_numpy(np.asarray(array)) for array in found]
