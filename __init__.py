"""intaglio: Qwen2 and EXAONE 4.0 checkpoints as faithful ONNX artifacts.

    checkpoint -> models -> exporter -> artifact folder -> runtime -> text, labels, spans

Importing the package imports nothing heavy; the rooms are imported by name:
``intaglio.exporter.export``, ``intaglio.runtime.load``, ``intaglio.artifact.read_manifest``.
"""

__version__ = "0.1.0"
