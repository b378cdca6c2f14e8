"""Whether the logits of a token depend on how many tokens are read in the same pass.

float32 sums of another order differ in their last bits. That decides between nearly equal logits alone, until something
rounds coarsely: quantized weights are multiplied with activations of 8 bits, and half precision rounds every result.
intaglio's kernels sum in one order for up to 63 tokens in a pass. ONNX Runtime's order depends on their number.
"""

from ...artifact import FLOAT_PRECISIONS
from ..kernels import QMOE
from ..kernels.edits.int8_cache import OPERATOR as INT8_CACHE
from .session import Session


def pass_dependence(session: Session) -> str | None:
    """Return what makes the logits of a token depend on the tokens in its pass, up to 63; None where nothing does."""
    manifest = session.manifest
    if manifest.model.cache_dtype != "float32":
        return f"its activations are {manifest.model.cache_dtype}"
    if manifest.precision in FLOAT_PRECISIONS:
        return None
    if "MatMulNBits" not in session.intaglio_kernels:
        return "its quantized weights are multiplied by ONNX Runtime's kernels"
    if f"com.microsoft::{QMOE}" in manifest.operators and QMOE not in session.intaglio_kernels:
        return "its experts are computed by ONNX Runtime's kernels"
    if not {"GroupQueryAttention", INT8_CACHE} & set(session.intaglio_kernels):
        return "its attention is computed by ONNX Runtime's kernels"
    kept = [name for name, entry in manifest.tensors.items() if _is_float_layer(name, entry.precision, entry.shape)]
    return f"{kept[0].removesuffix('.weight')} is not quantized" if kept else None


def _is_float_layer(name: str, precision: str, shape: tuple[int, ...]) -> bool:
    """Return True for a matrix of a layer; behind the LM head nothing rounds coarsely any more."""
    return ".layers." in name and name.endswith(".weight") and len(shape) == 2 and precision in FLOAT_PRECISIONS
