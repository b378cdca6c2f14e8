"""ik_llama.cpp through ik-llama-cpp-python's context, which takes one sequence.

Its own ``generate`` copies every logit into a Python list before it samples, which takes longer than the pass; here the
most likely token is found by numpy.
"""

import ik_llama_cpp  # pyright: ignore[reportMissingImports]  (in its own environment)
import numpy as np
from ik_llama_cpp import _ctypes_api as api  # pyright: ignore[reportMissingImports]
from ik_llama_cpp._internals import make_batch_range  # pyright: ignore[reportMissingImports]

from ..job import Job
from . import Floats, Tokens


class _Model:
    """A loaded model with its context; flash attention is off where the package turns it off."""

    def __init__(self, job: Job) -> None:
        self._llama = ik_llama_cpp.IkLlama(job.artifact, n_ctx=job.capacity, n_threads=job.threads, verbose=False)
        self._context = self._llama._context
        self._vocabulary = int(self._llama._model.n_vocab)
        self._chunk = int(self._context._n_ubatch)

    def _clear(self) -> None:
        self._context.kv_cache_clear()

    def _read(self, tokens: list[int], position: int) -> None:
        batch = make_batch_range(tokens, pos_start=position, logits_last=True)
        status = self._context.decode(batch)
        api.llama_batch_free(batch)
        if status != 0:
            raise SystemExit(f"ik_llama.cpp could not read {len(tokens)} tokens at {position}: {status}")

    def _logits(self) -> Floats:
        """Return the logits of the token that was read last: [V], valid until the next one is read."""
        return np.ctypeslib.as_array(self._context.get_logits(-1), (self._vocabulary,))


class Engine(_Model):
    version = f"ik-llama-cpp-python {ik_llama_cpp.__version__}"
    batches = False

    def generate(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        (prompt,) = prompts
        self._clear()
        for begin in range(0, len(prompt), self._chunk):
            self._read(prompt[begin : begin + self._chunk], begin)
        tokens = [int(self._logits().argmax())]
        while len(tokens) < new:
            self._read(tokens[-1:], len(prompt) + len(tokens) - 1)
            tokens.append(int(self._logits().argmax()))
        return [tokens]


class Logits(_Model):
    """Reads a text token by token, since the package keeps the logits of the last one alone."""

    def logits(self, tokens: Tokens) -> Floats:
        self._clear()
        found = np.empty((tokens.size, self._vocabulary), dtype=np.float32)
        for position, token in enumerate(tokens.tolist()):
            self._read([token], position)
            found[position] = self._logits()
        return found
