"""Reading and changing a graph without the onnx package."""
