"""OpenVINO GenAI's LLMPipeline with its defaults, except for the threads."""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import openvino  # pyright: ignore[reportMissingImports]  (in its own environment)
import openvino_genai  # pyright: ignore[reportMissingImports]

from ..job import Job
from . import Floats, Tokens


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


class Logits:
    """optimum-intel's stateful model with the arithmetic that the CPU plugin chooses for text generation."""

    def __init__(self, job: Job) -> None:
        model = openvino.Core().read_model(Path(job.artifact) / "openvino_model.xml")
        options = {"INFERENCE_NUM_THREADS": job.threads, "PERFORMANCE_HINT": "LATENCY"}
        compiled = openvino.compile_model(model, "CPU", options)
        self._request = compiled.create_infer_request()
        self._names = {name for value in compiled.inputs for name in value.get_names()}

    def logits(self, tokens: Tokens) -> Floats:
        self._request.reset_state()
        feeds = {
            "input_ids": tokens[None],
            "attention_mask": np.ones((1, tokens.size), dtype=np.int64),
            "position_ids": np.arange(tokens.size, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
        self._request.infer({name: value for name, value in feeds.items() if name in self._names})
        return np.array(self._request.get_tensor("logits").data[0], dtype=np.float32)
