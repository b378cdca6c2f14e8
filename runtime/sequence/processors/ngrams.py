"""No n-gram twice (``no_repeat_ngram_size``)."""

import numpy as np

from .base import Floats, Tokens


class NoRepeatNgram:
    """Excludes tokens that would complete an n-gram that prompt and continuation already have."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, tokens: Tokens, logits: Floats) -> Floats:
        if tokens.size >= self._size:
            windows = np.lib.stride_tricks.sliding_window_view(tokens, self._size)
            repeated = (windows[:, :-1] == tokens[tokens.size + 1 - self._size :]).all(axis=1)
            logits[windows[repeated, -1]] = -np.inf
        return logits
