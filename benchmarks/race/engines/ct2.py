"""CTranslate2's Generator, which takes tokens as words of its vocabulary."""

import json
from pathlib import Path

import ctranslate2
from tokenizers import Tokenizer

from ..job import Job


class Engine:
    version = f"ctranslate2 {ctranslate2.__version__}"
    batches = True

    def __init__(self, job: Job) -> None:
        self._generator = ctranslate2.Generator(job.artifact, device="cpu", inter_threads=1, intra_threads=job.threads)
        self._words = json.loads((Path(job.artifact) / "vocabulary.json").read_text(encoding="utf-8"))
        self._tokenizer = Tokenizer.from_file(f"{job.checkpoint}/tokenizer.json")

    def generate(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        results = self._generator.generate_batch(
            [[self._words[token] for token in prompt] for prompt in prompts],
            max_length=new,
            min_length=new,  # no end before
            sampling_topk=1,
            include_prompt_in_result=False,
        )
        return [result.sequences_ids[0] for result in results]
