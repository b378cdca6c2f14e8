"""The ONNX nodes of the fused operators of ``models/ops.py``, one module per target."""
