"""OpenVINO GenAI's LLMPipeline with what it chooses by itself, but for the threads."""

from importlib.metadata import version

import numpy as np
import openvino
import openvino_genai

from ..job import Job


class Engine:
    version = f"openvino-genai {version('openvino-genai')}"
    batches = True

    def __init__(self, job: Job) -> None:
        self._pipeline = openvino_genai.LLMPipeline(job.artifact, "CPU", INFERENCE_NUM_THREADS=job.threads)

    def generate(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = new
        config.ignore_eos = True
        config.do_sample = False
        ids = np.array(prompts, dtype=np.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        return [list(tokens) for tokens in self._pipeline.generate(inputs, config).tokens]
