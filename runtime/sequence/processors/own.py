"""A caller's own logits processor."""

import numpy as np

from ....errors import UsageError
from .base import Floats, Processor, Tokens


class OwnProcessor:
    """Calls a caller's function and checks what it returns."""

    def __init__(self, function: Processor) -> None:
        if not callable(function):
            raise UsageError(
                f"logits_processor must be a function of (token ids, logits), or a list of them, not {function!r}"
            )
        self._function = function

    def __call__(self, tokens: Tokens, logits: Floats) -> Floats:
        result = np.asarray(self._function(tokens, logits))
        if result.shape != logits.shape or not np.issubdtype(result.dtype, np.floating):
            got = "None" if result.dtype == object else f"{result.dtype} of shape {result.shape}"
            raise UsageError(
                f"logits_processor returned {got}; return logits of shape ({logits.size},), changed or not"
            )
        scores: Floats = result.astype(np.float32, copy=False)
        if not scores.max() < np.inf:
            raise UsageError("logits_processor returned NaN or infinity; give minus infinity to excluded tokens")
        return scores
