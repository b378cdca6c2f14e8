"""onnxruntime-genai's Generator. Its configuration's defaults, but for the threads and the end token."""

import json
from importlib.metadata import version

import numpy as np
import onnxruntime_genai as og

from ..job import Job


class Engine:
    version = f"onnxruntime-genai {version('onnxruntime-genai')}, onnxruntime {version('onnxruntime')}"
    batches = True

    def __init__(self, job: Job) -> None:
        config = og.Config(job.artifact)
        options = {"intra_op_num_threads": job.threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}, "eos_token_id": [_unused(job)]}}))
        self._model = og.Model(config)
        self._tokenizer = og.Tokenizer(self._model)

    def generate(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        length = len(prompts[0])
        params = og.GeneratorParams(self._model)
        params.set_search_options(do_sample=False, max_length=length + new, batch_size=len(prompts))
        generator = og.Generator(self._model, params)
        generator.append_tokens(np.array(prompts, dtype=np.int32))
        while not generator.is_done():
            generator.generate_next_token()
        return [generator.get_sequence(row)[length:].tolist() for row in range(len(prompts))]


def _unused(job: Job) -> int:
    """An id that stands for nothing, in the padding at the vocabulary's end: generation then never ends early."""
    with open(f"{job.artifact}/genai_config.json", encoding="utf-8") as stream:  # noqa: PTH123
        return int(json.load(stream)["model"]["vocab_size"]) - 1
