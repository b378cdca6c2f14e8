"""The progress of an export."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total). The stages are "text" (in tokens), "sensitivity" (in layers) and "calibration" (in
tokens) where a quantization needs them, "graph" (in steps), "weights" (in bytes) and "source" (in bytes hashed)."""
