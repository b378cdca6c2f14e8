"""intaglio through ``load`` and ``TextGenerator.generate``, one token a step: speculation is measured apart."""

from pathlib import Path
from typing import Any

import onnxruntime
from intaglio import __version__
from intaglio.runtime import TextGenerator, load

from ..job import Job

# The checkpoint's generation_config.json may penalise repetition; peers are asked for the bare argmax too.
GREEDY: dict[str, Any] = {"temperature": 0.0, "repetition_penalty": 1.0, "eos_token_id": [], "stop": ()}
PLAIN: dict[str, Any] = GREEDY | {"speculate": False}


class Engine:
    version = f"intaglio {__version__}, onnxruntime {onnxruntime.__version__}"
    batches = True

    def __init__(self, job: Job) -> None:
        model = load(Path(job.artifact), threads=job.threads, kv_cache=job.settings.get("kv_cache", "auto"))
        if not isinstance(model, TextGenerator):
            raise SystemExit(f"{job.artifact} does not generate text")
        self.model = model

    def generate(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        if len(prompts) == 1:
            return [list(self.model.generate(prompts[0], max_new_tokens=new, **PLAIN).token_ids)]
        found = self.model.generate(prompts, max_new_tokens=new, batch_size=len(prompts), **PLAIN)
        return [list(one.token_ids) for one in found]
