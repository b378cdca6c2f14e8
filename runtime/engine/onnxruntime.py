"""The onnxruntime package: importing it, the options of its sessions, and its errors."""

import importlib
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from ...errors import DependencyError

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
LOG_FATAL = 4  # failures are raised, and warnings about ONNX Runtime's own fusions do not help a user


def import_onnxruntime() -> Any:
    """Import onnxruntime.

    Raises:
        DependencyError: it is missing, or installed twice; the message names the extra that installs it.
    """
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        raise DependencyError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files; "
            "pip uninstall both, then pip install 'intaglio[cpu]' or 'intaglio[gpu]'"
        )
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise DependencyError(
            f"onnxruntime cannot be imported ({error}); "
            "pip install 'intaglio[cpu]', or 'intaglio[gpu]' for an NVIDIA GPU"
        ) from None


def session_options(ort: Any, threads: int) -> Any:
    """Return the ``SessionOptions`` that all sessions of intaglio share."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1  # the graph is a chain: no two nodes can run in parallel
    options.log_severity_level = LOG_FATAL
    return options


def is_out_of_memory(error: Exception) -> bool:
    """Return True where ONNX Runtime failed to allocate memory; its exceptions have no type for that."""
    text = str(error)
    return isinstance(error, MemoryError) or "allocate memory" in text or "bad_alloc" in text


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
