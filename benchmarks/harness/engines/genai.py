"""onnxruntime-genai's Generator with its configuration's defaults, except for the threads and the end token."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import onnxruntime_genai as og  # pyright: ignore[reportMissingImports]  (in its own environment)

from ..job import Job
from . import Floats, Tokens

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class Engine:
    version = f"onnxruntime-genai {version('onnxruntime-genai')}, onnxruntime {version('onnxruntime')}"
    batches = True

    def __init__(self, job: Job) -> None:
        config = og.Config(job.artifact)
        options = {"intra_op_num_threads": job.threads}
        unused = _model_config(job)["vocab_size"] - 1  # padding of the vocabulary: generation never ends early
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}, "eos_token_id": [unused]}}))
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
        return [generator.get_sequence(index)[length:].tolist() for index in range(len(prompts))]


class Logits:
    """The graph in a session of ONNX Runtime: it computes the logits of every position."""

    def __init__(self, job: Job) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        graph = str(Path(job.artifact) / "model.onnx")
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        past = [value for value in self._session.get_inputs() if value.name.startswith("past_key_values.")]
        width = _model_config(job)["decoder"]["head_size"]
        self._past = {value.name: np.zeros((1, value.shape[1], 0, width), dtype=TYPES[value.type]) for value in past}

    def logits(self, tokens: Tokens) -> Floats:
        mask = np.ones((1, tokens.size), dtype=np.int64)
        feeds = {**self._past, "input_ids": tokens[None], "attention_mask": mask}
        found: Floats = np.asarray(self._session.run(["logits"], feeds)[0], dtype=np.float32)[0]
        return found


def _model_config(job: Job) -> Any:
    return json.loads((Path(job.artifact) / "genai_config.json").read_text(encoding="utf-8"))["model"]
