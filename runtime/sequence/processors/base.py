"""The type of a logits processor."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Tokens = NDArray[np.int64]

Processor = Callable[[Tokens, Floats], Floats]
"""Returns the logits float32 [V] of the token that follows ``tokens`` int64 [T], prompt and continuation.

It may change the logits that it gets, which are its own, and return them. It is a function of its arguments alone: a
beam search calls it for several continuations in turn.
"""
