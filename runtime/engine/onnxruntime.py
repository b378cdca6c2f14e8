"""The onnxruntime package: importing it, the options of its sessions, and its errors."""

import importlib
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from ...errors import DependencyError

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
OUT_OF_MEMORY = ("allocate memory", "bad_alloc", "out of memory")  # the arena's, C++'s and CUDA's
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


def provider(device: str) -> str | tuple[str, dict[str, str]]:
    """Return a device's execution provider with its options, as ``InferenceSession`` takes them.

    CUDA's arena takes what is asked for instead of the next power of two, so that what ``gpu_memory`` reports as free
    can be used. float32 products are not rounded to TF32, whose 10 bits of mantissa would make float32 less exact than
    float16's sums.
    """
    if device == "cpu":
        return PROVIDERS[device]
    return PROVIDERS[device], {"device_id": "0", "arena_extend_strategy": "kSameAsRequested", "use_tf32": "0"}


def is_out_of_memory(error: Exception) -> bool:
    """Return True where ONNX Runtime failed to allocate memory; its exceptions have no type for that."""
    text = str(error)
    return isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY)


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
