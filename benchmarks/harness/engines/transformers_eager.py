"""transformers' generate in float32 on PyTorch, as ``from_pretrained`` returns the model."""

from typing import Any

import torch
import transformers

from ..job import Job


class Engine:
    version = f"transformers {transformers.__version__}, torch {torch.__version__}"
    batches = True

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job.threads)
        self._model: Any = transformers.AutoModelForCausalLM.from_pretrained(job.checkpoint, dtype=torch.float32)
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(job.checkpoint)
        self._model.generation_config = transformers.GenerationConfig(do_sample=False, pad_token_id=0)  # type: ignore[no-untyped-call]

    def generate(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            found = self._model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new)
        return [sequence[ids.shape[1] :] for sequence in found.tolist()]
