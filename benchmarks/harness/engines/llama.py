"""llama.cpp through llama-cpp-python's Llama.generate, which takes one sequence."""

from itertools import islice

import llama_cpp  # pyright: ignore[reportMissingImports]  (in its own environment)
import numpy as np

from ..job import Job
from . import Floats, Tokens


class Engine:
    version = f"llama-cpp-python {llama_cpp.__version__}"
    batches = False

    def __init__(self, job: Job) -> None:
        self._llama = llama_cpp.Llama(
            job.artifact, n_ctx=job.capacity, n_threads=job.threads, n_threads_batch=job.threads, verbose=False
        )

    def generate(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        (prompt,) = prompts
        return [list(islice(self._llama.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0), new))]


class Logits:
    """A context that keeps the logits of every position."""

    def __init__(self, job: Job) -> None:
        self._llama = llama_cpp.Llama(
            job.artifact,
            n_ctx=job.capacity,
            n_batch=job.capacity,
            n_ubatch=512,
            n_threads=job.threads,
            n_threads_batch=job.threads,
            logits_all=True,
            verbose=False,
        )

    def logits(self, tokens: Tokens) -> Floats:
        self._llama.reset()
        self._llama.eval(tokens.tolist())
        return np.array(self._llama.scores[: tokens.size], dtype=np.float32)
