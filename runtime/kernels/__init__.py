"""Our own kernels for ONNX Runtime's CPU, compiled when the package is installed.

    native/library.c        what ONNX Runtime loads          native/ort.h, ort_abi.h   its C interface
    native/matmul_op.c      MatMulNBits: its inputs          native/layer_op.c         several, and what is around
    native/weights_op.h     the weights among the inputs     native/matmul.h, .c       products, and their tasks
    native/weights.h, .c    packing                          native/instructions.h     how weights lie in memory
    native/rows.h           what is done with a row of x     native/ranges.h           loops around a product
    native/avx512.c         products with AVX512-VNNI        native/ymm.h              those of 256 bits:
    native/avx_vnni.c       with AVX-VNNI                    native/avx2.c             with AVX2 alone
    native/attention_op.c   GroupQueryAttention: its inputs  native/attention.h, .c    attention over a KV cache
    native/attention_append.h  rotation, and the cache       native/attention_cache.h   keys and values as they lie
    native/attention_few.c  of few queries of a key head     native/attention_many.c   of many
    native/gather_op.c      GatherBlockQuantized             native/half.h             numbers of half precision
    native/memory.h         memory of packed weights         native/pages.h            memory of mapped files
    native/operator.h       what operators say of themselves native/exponential.h      what exponentials are made of
    native/coarse.h, .c     products of long texts           native/threads.h          processors of this process

The file needs no change: ONNX Runtime asks a registered library for an operator's kernel before it takes its own. On
loading, scales.py drops the Casts that only ONNX Runtime's kernels need, layers.py merges the products of a layer, and
int8_cache.py, where that is asked for, lets attention keep its cache in 8 bits. Where the library is absent (there was
no C compiler) or the processor lacks the instructions, ONNX Runtime's kernels do the work.
"""

import ctypes
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ...artifact import Manifest
from ..graph.graph import Change
from .edits.int8_cache import OPERATOR as INT8_CACHE
from .edits.int8_cache import with_int8_cache
from .edits.merged_matmuls import with_layers
from .edits.stored_scales import with_stored_scales

LIBRARY = "_kernels" + {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")


def library() -> Path | None:
    """Return the compiled library, or None where the installation has none."""
    path = Path(__file__).parent / LIBRARY
    return path if path.exists() else None


def instructions() -> str | None:
    """The processor's instructions that products are computed with: "AVX512-VNNI", "AVX-VNNI" or "AVX2".

    All give the same bits, but for long texts (native/matmul.h). The environment variable INTAGLIO_KERNELS names the
    only ones that may be used. None where there is no library, where it is another machine's, or where the processor
    has none that it knows.
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


def replaceable(manifest: Manifest, windowed: bool, int8_cache: bool = False) -> tuple[str, ...]:
    """The operators of an artifact's graph that the kernels can take over, attention last.

    They compute in float32, and attention keeps no cache of a window's length.

    Args:
        windowed, int8_cache: what the cache of the session is to be.
    """
    facts = manifest.model
    if manifest.target != "ort" or facts.cache_dtype != "float32":
        return ()
    operators = []
    if manifest.precision in ("int8", "int4"):
        operators.append("MatMulNBits")
    if not windowed and facts.head_dim % 16 == 0 and facts.head_dim <= 256:
        operators.append(INT8_CACHE if int8_cache else "GroupQueryAttention")
    return tuple(operators)


def changes_for(operators: Sequence[str]) -> tuple[Change, ...]:
    """What makes a graph fit the kernels of these operators."""
    changes: list[Change] = [with_stored_scales, with_layers] if "MatMulNBits" in operators else []
    if INT8_CACHE in operators:
        changes.append(with_int8_cache)
    return tuple(changes)


def session_on_own_kernels(
    ort: Any,
    graph: str | bytes,
    options: Callable[[], Any],
    operators: Sequence[str],
    disabled_optimizers: Iterable[str] = (),
) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU where the library's kernels compute ``operators``.

    None where there is no library, or where it or ONNX Runtime declines: the processor lacks an instruction, a node has
    a format that the kernels do not know.

    Args:
        options: makes the session's options.
        disabled_optimizers: as ``open_session`` has them.
    """
    path = library()
    if path is None or not operators:
        return None
    try:
        made = options()
        for operator in operators:
            made.add_session_config_entry(f"intaglio.{operator}", "1")
        made.register_custom_ops_library(str(path))
        return ort.InferenceSession(
            graph, made, providers=["CPUExecutionProvider"], disabled_optimizers=disabled_optimizers
        )
    except Exception:  # onnxruntime's exceptions have no common class; what is wrong with the graph shows without us
        return None
