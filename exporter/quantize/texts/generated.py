"""Calibration text that the model writes itself, token by token, at temperature 1.

Such text is what the model sees when it generates, in the languages and forms that it knows (Liu et al., 2023,
"LLM-QAT", generate data in this way). A window begins with a few tokens of the default text. Where the model ends a
text, the window goes on with the next such beginning.
"""

import hashlib
from collections.abc import Callable
from math import prod
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from ....artifact import Task
from ....errors import UnsupportedError, UsageError
from ....files.tokenizer_file import named_tokens
from ....machine import available_memory, give_back_memory
from ....models.config import ModelConfig
from ....models.heads import build
from ....models.loading.parameters import load_module
from ....models.weight_source import WeightSource
from .names import SELF

BATCH = 16
"""Windows that are generated at once."""

PROMPT = 8
"""Tokens of the default text that a window, or a text in it, begins with."""

SEED = 20
WINDOWS, KEY = "windows", "key"
BYTES = 4  # of a number in float32


def check_generates(task: Task) -> None:
    """Check that a model of this task can write text.

    Raises:
        UsageError: it cannot.
    """
    if task != "text-generation":
        raise UsageError(
            f"--calibration {SELF} samples text from the model, and the task is {task}; give text files instead"
        )


def needed_memory(config: ModelConfig, rows: int, length: int) -> int:
    """Return the bytes that ``generate`` takes: the weights, the KV cache twice while it grows, and the logits."""
    with torch.device("meta"):
        weights = sum(prod(parameter.shape) for parameter in build(config, "text-generation").parameters())
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * length * rows
    return BYTES * (weights + 2 * cache + 3 * rows * config.vocab_size)


@torch.no_grad()
def generate(
    checkpoint: WeightSource,
    tokenizer: Tokenizer,
    beginnings: Tensor,
    count: int,
    length: int,
    progress: Callable[[int, int], None],
) -> Tensor:
    """Return windows of text that the model generates, int64 [count, length]; the same ones each time.

    The whole model is in memory, in float32. The KV cache of a batch of windows grows with each token.

    Args:
        beginnings: tokens of a text, int64 [T], of which a few are taken here and there.
        progress: called with (tokens done, tokens in all).

    Raises:
        UsageError: the model does not fit into the memory that is free.
        UnsupportedError: the model computes logits that are NaN or infinite.
    """
    rows = min(BATCH, count)
    needed, free = needed_memory(checkpoint.config, rows, length), available_memory()
    if free is not None and needed > free:
        raise UsageError(
            f"--calibration {SELF} holds the whole model in float32, which takes {needed / 1e9:,.1f} GB, and "
            f"{free / 1e9:,.1f} GB are free; give text files as --calibration, or free some memory"
        )
    module = load_module(checkpoint, "text-generation")
    writer = _Writer(checkpoint, tokenizer, beginnings)
    windows = []
    for start in range(0, count, BATCH):
        some = min(BATCH, count - start)
        before = start * length

        def advance(tokens: int) -> None:
            progress(before + tokens, count * length)  # noqa: B023 - called within this iteration

        windows.append(writer.write(module, some, length, advance))
    del module
    give_back_memory()
    return torch.cat(windows)


def kept(file: Path, checkpoint: WeightSource, shape: tuple[int, int], make: Callable[[], Tensor]) -> Tensor:
    """Return the windows that an earlier run stored in ``file``, or make and store them.

    Windows of other weight files, by size and modification time, or of another shape are made anew.
    """
    digest = hashlib.sha256(f"{shape} {SEED} {PROMPT} {BATCH}\n".encode())
    for weights in sorted({info.file for info in checkpoint.tensors.values()}):
        status = weights.stat()
        digest.update(f"{weights.resolve()} {status.st_size} {status.st_mtime_ns}\n".encode())
    key = digest.hexdigest()
    if file.is_file():
        with safe_open(file, "pt") as stored:
            if stored.metadata() == {KEY: key}:
                windows: Tensor = stored.get_tensor(WINDOWS)
                return windows
    windows = make()
    new = file.with_name(f"{file.name}.new")
    save_file({WINDOWS: windows}, new, {KEY: key})
    new.rename(file)
    return windows


class _Writer:
    """The prompts and the random numbers of a generation."""

    def __init__(self, checkpoint: WeightSource, tokenizer: Tokenizer, beginnings: Tensor) -> None:
        self.folder = checkpoint.folder
        self.first = tokenizer.encode("").ids  # such as <bos>, where the tokenizer puts it before a text
        end = named_tokens(checkpoint.text_folder).get("eos_token")
        self.end = None if end is None else tokenizer.token_to_id(end)
        self.beginnings = beginnings
        self.generator = torch.Generator().manual_seed(SEED)

    def write(self, module: torch.nn.Module, rows: int, length: int, advance: Callable[[int], None]) -> Tensor:
        """Return windows, int64 [rows, length]."""
        windows = torch.empty(rows, length, dtype=torch.int64)
        waiting = [self.beginning() for _ in range(rows)]
        past = None
        for position in range(length):
            sampled = None
            if position:
                output = module(windows[:, position - 1 : position], past_key_values=past, logits_to_keep=1)
                past, sampled = output.past_key_values, self._sample(output.logits[:, -1].float())
            for row, begun in enumerate(waiting):
                if begun:
                    windows[row, position] = begun.pop(0)
                    continue
                assert sampled is not None, "a window begins with a beginning"
                windows[row, position] = sampled[row]
                if sampled[row] == self.end:
                    begun += self.beginning()
            advance(rows * (position + 1))
        return windows

    def beginning(self) -> list[int]:
        start = int(torch.randint(len(self.beginnings) - PROMPT, (), generator=self.generator))
        return [*self.first, *self.beginnings[start : start + PROMPT].tolist()]

    def _sample(self, logits: Tensor) -> list[int]:
        if not torch.isfinite(logits.sum()):
            raise UnsupportedError(
                f"{self.folder}: the model computes NaN or infinite logits; see whether the checkpoint is damaged, or "
                "quantize it with --method rtn"
            )
        sampled: list[int] = torch.multinomial(logits.softmax(-1), 1, generator=self.generator)[:, 0].tolist()
        return sampled
