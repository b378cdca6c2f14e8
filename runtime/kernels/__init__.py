"""Intaglio's kernels for ONNX Runtime's CPU provider: operators in C, in a library compiled when the package is built.

    native/library.c                what ONNX Runtime calls; it registers the operators
    native/ort/                     ONNX Runtime's C interface (ort_abi.h, ort.h), how an operator is defined, and the
                                    checks of a node's attributes, inputs and outputs (node.h)
    native/matmul/
      operator.c, merged_operator.c, gather_operator.c    MatMulNBits, MergedMatMulNBits, GatherBlockQuantized
      block_format, weight_inputs, weights    quantized weights of an operator, and how they are packed
      matmul, operand.h             the division of a multiplication into tasks
      instructions.h                what each instruction set implements, and the memory layout
      avx512.c, avx_vnni.c, avx2.c  the instruction sets of x86-64; ymm.h for 256 bits
      neon_i8mm.c, neon_dotprod.c, neon.c     those of 64-bit ARM; neon.h for all three
      loops.h, normalize.h          for all
      unpacked.h                    GEMM for many rows with 256 bits, with weights of 4 bits unpacked to bytes
      repacked, amx                 GEMM for long sequences with AVX512 and AMX, with weights repacked to int8
    native/experts/
      operator.c                    QMoE
      routing, experts              the choice of each token's experts, and their division into tasks
    native/attention/
      operator.c                    GroupQueryAttention and GroupQueryAttentionInt8
      append, cache.h, sliding.h    rotation, and the KV cache, also one that keeps a window
      attention                     the division of attention into tasks
      decode.h, prefill.h           attention with few queries, and with many, compiled for each instruction set:
      avx512.c, avx2.c              on the vectors of common/simd512.h and simd256.h
      long_tile.h                   attention of long sequences with rounded products:
      amx.c, bfloat16.h             of bfloat16
      integers.h                    of int16, compiled for avx512_vnni.c and avx_vnni.c
    native/common/                  memory, files of packed weights, sizes, processors, float16, vector helpers

The artifact needs no change: ONNX Runtime takes an operator's kernel from a registered library first. While a graph is
loaded, edits/ adapts it: stored_scales.py drops the Casts that only ONNX Runtime's kernels need, low_bits.py the nodes
that make weights of 8 bits of those of 5, merged_matmuls.py merges the matrix multiplications of a layer, and
int8_cache.py makes the KV cache int8 if the session asks for it.
Without the library (there was no C compiler), or on a processor without the instructions, ONNX Runtime's kernels run.
"""

import ctypes
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, cast

from ...artifact import Manifest
from ...errors import IntaglioWarning
from ..graph.graph import Change
from .edits.int8_cache import OPERATOR as INT8_CACHE
from .edits.int8_cache import fits, use_int8_cache
from .edits.low_bits import use_low_bits
from .edits.merged_matmuls import merge_matmuls
from .edits.stored_scales import use_stored_scales
from .weight_file import WeightFile, weight_file

QMOE = "QMoE"
X86 = ("x86_64", "amd64")
VNNI = ("AMX", "AVX512-VNNI", "AVX-VNNI")
"""The instruction sets of x86 in which sums of products of bytes do not saturate."""
LIBRARY = "_kernels" + {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")


def library() -> Path | None:
    """Return the compiled library, or None where the installation has none.

    The environment variable INTAGLIO_KERNELS_LIBRARY names another file, such as one compiled with sanitizers.
    """
    other = os.environ.get("INTAGLIO_KERNELS_LIBRARY")
    path = Path(other) if other else Path(__file__).parent / LIBRARY
    return path if path.exists() else None


def warn_without_library() -> None:
    """Warn where the installation has no library, once in a process, and on the processors that it is for."""
    if library() is None and platform.machine().lower() in (*X86, "aarch64", "arm64"):
        _warn_once()


@cache
def _warn_once() -> None:
    warnings.warn(
        "this installation of intaglio has no kernels of its own, because there was no C compiler; ONNX Runtime's "
        "kernels run instead, more slowly: install a C compiler (on Debian: gcc), and intaglio again",
        IntaglioWarning,
        stacklevel=3,
    )


def instructions() -> str | None:
    """Return the instruction set of the matrix multiplications.

    It is "AMX", "AVX512-VNNI", "AVX-VNNI" or "AVX2"; on ARM "NEON-I8MM", "NEON-DotProd" or "NEON".
    All return the same bits, except for long sequences (native/matmul/matmul.h). The environment variable
    INTAGLIO_KERNELS names the only one that may be used. Return None if there is no library, if it is for another
    machine, or if the processor has none of them.
    """
    return _name("intaglio_instructions")


def saturates() -> bool:
    """Return True on x86 without VNNI, where ONNX Runtime's products of unsigned and signed bytes saturate.

    It is also returned where the processor's instructions are not known, since there is no library.
    """
    return platform.machine().lower() in X86 and instructions() not in VNNI


def packed_layout() -> str | None:
    """Return the name of the layout of packed weights: AMX packs as AVX512-VNNI; None as ``instructions``."""
    return _name("intaglio_layout")


def _name(function: str) -> str | None:
    """Return the name that a function of the library returns; None if it returns none, or there is no library."""
    name = _function(library(), function, ctypes.c_char_p)
    found: bytes | None = None if name is None else name()
    return found.decode("ascii") if found else None


LONG_SEQUENCE, LEAST_PART = 64, 8
"""REPACK_ROWS and REPACK_LEAST in native/matmul/repacked.h."""


@contextmanager
def part_of_a_long_sequence() -> Iterator[None]:
    """While this is open, passes of this thread read a part of a long sequence as they would read it in the whole.

    The kernels multiply a sequence of ``LONG_SEQUENCE`` tokens and more, and attend to it, in another way than a
    shorter one; a part needs ``LEAST_PART`` tokens.
    """
    set_rows = _repack_rows(library())
    if set_rows is None:
        yield
        return
    set_rows(LEAST_PART)
    try:
        yield
    finally:
        set_rows(LONG_SEQUENCE)


@cache
def _repack_rows(path: Path | None) -> Callable[[int], None] | None:
    """Return the library's function, which sets from how many rows on a sequence is long in the calling thread."""
    return _function(path, "intaglio_repack_rows", None, ctypes.c_int64)


def _function(path: Path | None, name: str, result: Any, *arguments: Any) -> Callable[..., Any] | None:
    """Return a function of the library; None if there is no library, or if it is for another machine."""
    try:
        found = None if path is None else getattr(ctypes.CDLL(str(path)), name)
    except (OSError, AttributeError):
        return None
    if found is not None:
        found.restype, found.argtypes = result, arguments
    return cast(Callable[..., Any] | None, found)


def replaceable(manifest: Manifest, int8_cache: bool = False) -> tuple[str, ...]:
    """Return the operators of an artifact's graph that intaglio's kernels can run, attention last.

    They compute in float32.

    Args:
        int8_cache: The session keeps an int8 KV cache.
    """
    facts = manifest.model
    if manifest.target != "ort" or facts.cache_dtype != "float32":
        return ()
    operators = []
    if manifest.precision in ("int8", "int4"):
        operators.append("MatMulNBits")
        if f"com.microsoft::{QMOE}" in manifest.operators:
            operators.append(QMOE)
    if fits(facts):
        operators.append(INT8_CACHE if int8_cache else "GroupQueryAttention")
    return tuple(operators)


def changes_for(operators: Sequence[str]) -> tuple[Change, ...]:
    """Return the edits of a graph that intaglio's kernels of these operators need."""
    changes: list[Change] = [use_stored_scales, use_low_bits, merge_matmuls] if "MatMulNBits" in operators else []
    if INT8_CACHE in operators:
        changes.append(use_int8_cache)
    return tuple(changes)


def packed_weights(folder: Path, data: Path) -> WeightFile | None:
    """Return the file of an artifact's packed weights in a folder; None without kernels that pack weights.

    Raises:
        UnsupportedError, OutputError: as ``weight_file``.
    """
    path, layout = library(), packed_layout()
    return None if path is None or layout is None else weight_file(folder, path, data, layout)


def session_on_intaglio_kernels(
    ort: Any,
    graph: str | bytes,
    options: Callable[[], Any],
    operators: Sequence[str],
    disabled_optimizers: Iterable[str] = (),
    weights: WeightFile | None = None,
) -> Any:
    """Return an ``onnxruntime.InferenceSession`` on the CPU in which intaglio's kernels run ``operators``.

    Return None if there is no library, or if the session cannot be created: the processor lacks an instruction, or the
    kernels do not support a node.

    Args:
        options: Returns new session options.
        disabled_optimizers: Passed to ONNX Runtime.
        weights: The file that packed weights are mapped from; None for memory of this process alone.
    """
    path = library()
    if path is None or not operators:
        return None
    try:
        made = options()
        for operator in operators:
            made.add_session_config_entry(f"intaglio.{operator}", "1")
        made.register_custom_ops_library(str(path))
        with weights.used() if weights is not None else nullcontext():
            return ort.InferenceSession(
                graph, made, providers=["CPUExecutionProvider"], disabled_optimizers=disabled_optimizers
            )
    except Exception:  # onnxruntime's exceptions have no common class; a faulty graph fails again without the library
        return None
