"""How far the next tokens are from the float32 model's, each tool with the arithmetic that it runs with.

``settings["cache"]`` is a folder of quality_cache.py. intaglio is read twice: whole windows at once, as prefill reads
them, and every EVERY-th window token by token, as decode does, since the two may run through different kernels.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from backends import Floats, Tokens, open_model
from quality import compare

from ..job import Job

EVERY = 8


def measure(job: Job) -> dict[str, Any]:
    """The figures of ``quality.compare``; for intaglio ``step`` has decode's and ``step_prefill`` those windows' KL.

    ``int8_cache`` has those of a KV cache of int8, where there can be one.
    """
    cache = Path(job.settings["cache"])
    if job.tool == "CTranslate2":
        return compare(Ct2Logits(job), cache)  # type: ignore[arg-type]
    if job.tool != "intaglio":
        length = int(np.load(cache / "windows.npy", mmap_mode="r").shape[1])
        return compare(open_model(Path(job.artifact), threads=job.threads, capacity=length), cache)
    from intaglio.errors import UnsupportedError  # the others' interpreters have no intaglio

    figures = compare(OwnLogits(job, stepwise=False), cache)  # type: ignore[arg-type]
    figures["step"] = compare(OwnLogits(job, stepwise=True), cache, EVERY)  # type: ignore[arg-type]
    try:
        small = OwnLogits(job, stepwise=False, kv_cache="int8")
    except UnsupportedError:
        small = None
    if small is not None:
        figures["int8_cache"] = compare(small, cache)  # type: ignore[arg-type]
    figures["step_prefill"] = float(np.mean(figures["kl_of_window"][::EVERY]))
    return figures


class OwnLogits:
    """Every position's logits from the session that intaglio's runtime opens, its kernels included."""

    def __init__(self, job: Job, stepwise: bool, kv_cache: Literal["auto", "int8"] = "auto") -> None:
        from intaglio.runtime.engine.opening import open_session
        from intaglio.runtime.folder import open_folder

        folder, manifest = open_folder(job.artifact, None)
        self._session = open_session(folder, manifest, threads=job.threads, kv_cache=kv_cache)
        self._stepwise = stepwise
        self._names = [f"{i}.{part}" for i in range(manifest.model.num_hidden_layers) for part in ("key", "value")]

    def logits(self, tokens: Tokens) -> Floats:
        session = self._session
        shape = (1, session.manifest.model.num_key_value_heads, 0, session.cache_columns)
        empty = np.zeros(shape, dtype=session.cache_dtype)
        past, found = [empty for _ in self._names], []
        size = 1 if self._stepwise else tokens.size
        for end in range(size, tokens.size + 1, size):
            feeds = {f"past_key_values.{name}": value for name, value in zip(self._names, past, strict=True)}
            feeds |= {"input_ids": tokens[None, end - size : end], "attention_mask": np.ones((1, end), dtype=np.int64)}
            feeds["logits_to_keep"] = np.zeros(1, dtype=np.int64)
            outputs = ("logits", *(f"present.{name}" for name in self._names))
            logits, *past = self._session.run(feeds, outputs)
            found.append(logits[0])
        return np.concatenate(found)


class Ct2Logits:
    """CTranslate2's forward pass over a whole text."""

    def __init__(self, job: Job) -> None:
        import ctranslate2

        self._generator = ctranslate2.Generator(job.artifact, device="cpu", inter_threads=1, intra_threads=job.threads)

    def logits(self, tokens: Tokens) -> Floats:
        return np.array(self._generator.forward_batch([tokens.tolist()]), dtype=np.float32)[0]
