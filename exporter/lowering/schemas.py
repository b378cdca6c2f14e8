"""The schema of the operator that ONNX Runtime adds to ONNX's own domain, for tools that know ONNX's operators alone.

ONNX Runtime registers SimplifiedLayerNormalization in the domain of ONNX (onnxruntime/core/graph/contrib_ops/
contrib_defs.cc). Its fusions, and its kernels for DirectML and for bfloat16, take this operator and not
RMSNormalization, so graphs of target ``ort`` have it; ``onnx.checker`` refuses it as unknown.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import onnx
from onnx.defs import OpSchema

NAME, VERSION = "SimplifiedLayerNormalization", 1


@contextmanager
def onnxruntime_schemas() -> Iterator[None]:
    """Let the onnx package know SimplifiedLayerNormalization inside the block, for checks and shape inference."""
    if onnx.defs.has(NAME):
        yield
        return
    onnx.defs.register_schema(_schema())
    try:
        yield
    finally:
        onnx.defs.deregister_schema(NAME, VERSION, "")


def _schema() -> OpSchema:
    floats = [f"tensor({name})" for name in ("float16", "float", "double", "bfloat16")]
    optional = OpSchema.FormalParameterOption.Optional
    return OpSchema(
        NAME,
        "",
        VERSION,
        doc="RMS normalization over the last axes (Zhang and Sennrich, 2019).",
        inputs=[OpSchema.FormalParameter("X", "T"), OpSchema.FormalParameter("scale", "V")],
        outputs=[
            OpSchema.FormalParameter("Y", "V"),
            OpSchema.FormalParameter("inv_std_var", "U", param_option=optional),
        ],
        type_constraints=[("T", floats, ""), ("U", floats[1:3], ""), ("V", floats, "")],
        attributes=[
            OpSchema.Attribute("axis", OpSchema.AttrType.INT, ""),
            OpSchema.Attribute("epsilon", OpSchema.AttrType.FLOAT, ""),
            OpSchema.Attribute("stash_type", OpSchema.AttrType.INT, ""),
        ],
    )
