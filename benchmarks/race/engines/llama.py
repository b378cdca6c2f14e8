"""llama.cpp through llama-cpp-python's Llama.generate, which takes one sequence."""

from itertools import islice

import llama_cpp

from ..job import Job


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
