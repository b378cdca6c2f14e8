"""transformers' generate in float32 on PyTorch, as ``from_pretrained`` gives it."""

import torch
import transformers

from ..job import Job


class Engine:
    version = f"transformers {transformers.__version__}, torch {torch.__version__}"
    batches = True

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job.threads)
        self._model = transformers.AutoModelForCausalLM.from_pretrained(job.checkpoint, dtype=torch.float32)
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(job.checkpoint)
        self._greedy = transformers.GenerationConfig(do_sample=False, pad_token_id=0)
        self._model.generation_config = self._greedy

    def generate(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            found = self._model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new)
        return [row[ids.shape[1] :] for row in found.tolist()]
