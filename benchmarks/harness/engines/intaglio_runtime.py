"""intaglio's ``load`` and ``TextGenerator.generate``, one token a step: speculation has its own section."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from intaglio import __version__
from intaglio.runtime import TextGenerator, load
from intaglio.runtime.engine.opening import open_session
from intaglio.runtime.folder import open_folder

from ..job import Job
from . import Floats, Tokens

# The checkpoint's generation_config.json may penalise repetition; the peers compute the bare argmax too.
GREEDY: dict[str, Any] = {"temperature": 0.0, "repetition_penalty": 1.0, "eos_token_id": [], "stop": ()}
PLAIN: dict[str, Any] = GREEDY | {"speculate": False}


class Engine:
    version = f"intaglio {__version__}, onnxruntime {onnxruntime.__version__}"
    batches = True

    def __init__(self, job: Job) -> None:
        chosen = {"kv_cache": job.settings.get("kv_cache", "exact"), "kernels": job.settings.get("kernels", "auto")}
        model = load(Path(job.artifact), threads=job.threads, **chosen)
        if not isinstance(model, TextGenerator):
            raise SystemExit(f"{job.artifact} does not generate text")
        self.model = model

    def generate(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        if len(prompts) == 1:
            return [list(self.model.generate(prompts[0], max_new_tokens=new, **PLAIN).token_ids)]
        found = self.model.generate(prompts, max_new_tokens=new, batch_size=len(prompts), **PLAIN)
        return [list(one.token_ids) for one in found]


class Logits:
    """The session that intaglio's runtime opens; ``stepwise`` reads one token a pass, as decode does."""

    def __init__(self, job: Job, stepwise: bool = False, kv_cache: Literal["exact", "int8"] = "exact") -> None:
        folder, manifest = open_folder(job.artifact, None)
        self._session = open_session(folder, manifest, threads=job.threads, kv_cache=kv_cache)
        self._stepwise = stepwise
        self._names = [f"{i}.{part}" for i in range(manifest.model.num_hidden_layers) for part in ("key", "value")]

    def logits(self, tokens: Tokens) -> Floats:
        session = self._session
        shape = (1, session.manifest.model.num_key_value_heads, 0, session.cache_columns)
        empty = np.zeros(shape, dtype=session.cache_dtype)
        past: list[Any] = [empty for _ in self._names]
        found: list[Floats] = []
        size = 1 if self._stepwise else tokens.size
        for end in range(size, tokens.size + 1, size):
            feeds = {f"past_key_values.{name}": value for name, value in zip(self._names, past, strict=True)}
            feeds |= {"input_ids": tokens[None, end - size : end], "attention_mask": np.ones((1, end), dtype=np.int64)}
            feeds["logits_to_keep"] = np.zeros(1, dtype=np.int64)
            outputs = ("logits", *(f"present.{name}" for name in self._names))
            logits, *past = session.run(feeds, outputs)
            found.append(logits[0])
        return np.concatenate(found)
