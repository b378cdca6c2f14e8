"""CTranslate2's Generator, which takes tokens as words of its vocabulary."""

import json
from pathlib import Path
from typing import Any

import ctranslate2  # pyright: ignore[reportMissingImports]  (in its own environment)
import numpy as np

from ..job import Job
from . import Floats, Tokens


class Engine:
    version = f"ctranslate2 {ctranslate2.__version__}"
    batches = True

    def __init__(self, job: Job) -> None:
        self._generator = _open(job)
        self._words = json.loads((Path(job.artifact) / "vocabulary.json").read_text(encoding="utf-8"))

    def generate(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        results = self._generator.generate_batch(
            [[self._words[token] for token in prompt] for prompt in prompts],
            max_length=new,
            min_length=new,  # no end token earlier
            sampling_topk=1,
            include_prompt_in_result=False,
        )
        return [result.sequences_ids[0] for result in results]


class Logits:
    """The forward pass over a whole text."""

    def __init__(self, job: Job) -> None:
        self._generator = _open(job)

    def logits(self, tokens: Tokens) -> Floats:
        found: Floats = np.array(self._generator.forward_batch([tokens.tolist()]), dtype=np.float32)[0]
        return found


def _open(job: Job) -> Any:
    return ctranslate2.Generator(job.artifact, device="cpu", inter_threads=1, intra_threads=job.threads)
