"""Our own kernels for ONNX Runtime's MatMulNBits on the CPU, compiled when the package is installed.

    native/matmul.h    what is computed           native/library.c   what ONNX Runtime sees of it
    native/avx512.c    how, with AVX512-VNNI      native/ort_abi.h   the part of its C interface that this needs
    native/pages.c     memory of mapped files     native/threads.c   processors of this process

A graph needs no change to run on them: ONNX Runtime asks a registered library for an operator's kernel before it takes
its own. Where the library is absent (there was no C compiler) or the processor lacks the instructions, ONNX Runtime's
kernels do the work.
"""

import ctypes
from pathlib import Path
from typing import Any

from ...artifact import Manifest

LIBRARY = "_nbits"
SUFFIXES = (".so", ".dylib", ".pyd")


def library() -> Path | None:
    """The compiled library, or None where the installation has none."""
    found = [path for path in Path(__file__).parent.glob(f"{LIBRARY}.*") if path.suffix in SUFFIXES]
    return found[0] if found else None


def instructions() -> str | None:
    """The processor's instructions that the library computes with, such as "AVX512-VNNI".

    None where there is no library, where it is another machine's, or where the processor has none that it knows.
    """
    path = library()
    try:
        name = None if path is None else ctypes.CDLL(str(path)).intaglio_instructions
    except (OSError, AttributeError):
        return None
    if name is None:
        return None
    name.restype = ctypes.c_char_p
    found: bytes | None = name()
    return found.decode("ascii") if found else None


def fits(manifest: Manifest) -> bool:
    """Whether the artifact's products are of the kind that the kernels compute: quantized weights, float32 x."""
    quantized = manifest.precision in ("int8", "int4")
    return quantized and manifest.target == "ort" and manifest.model.cache_dtype == "float32"


def session_on_own_kernels(ort: Any, graph: str | bytes, options: Any) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU with the library registered in ``options``.

    None where there is no library, or where it or ONNX Runtime declines: the processor lacks an instruction, a node has
    a format that the kernels do not know.
    """
    path = library()
    if path is None:
        return None
    try:
        options.register_custom_ops_library(str(path))
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime's exceptions have no common class; what is wrong with the graph shows without us
        return None
