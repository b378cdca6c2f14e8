"""Measuring how fast an artifact runs on this machine, through the objects that callers use.

The time to the first token is that of a call for one token. Decode is the time of a call for N tokens minus that of a
call for one, over N - 1. Token ids are random and differ in every repeat, so caches cannot help. Every kind of call
runs once before it is timed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from ..artifact import Precision
from ..contract import OUTPUTS
from ..errors import UsageError
from .engine.onnxruntime import import_onnxruntime
from .engine.session import Device, Kernels, KVCache
from .generation.generator import TextGenerator
from .load import Model, load
from .tasks.padded import run_batches

Clock = Callable[[], float]
Report = Callable[[int, int], None]

SENTENCES = 64
BATCH = 16  # the default batch size of the task heads
PROMPT, NEW, SENTENCE = 512, 128, 32  # tokens, where the context has room for them


@dataclass(frozen=True)
class GenerationTimes:
    """Seconds of each repeat: to the first token, and in total."""

    prompt_tokens: int
    new_tokens: int
    first: tuple[float, ...]
    whole: tuple[float, ...]

    @property
    def prefill(self) -> tuple[float, ...]:
        """Tokens/s of the prompt in each repeat."""
        return tuple(self.prompt_tokens / seconds for seconds in self.first)

    @property
    def decode(self) -> tuple[float, ...]:
        """Tokens/s after the first one, of each repeat whose difference is positive despite the clock's noise."""
        pairs = zip(self.first, self.whole, strict=True)
        return tuple((self.new_tokens - 1) / (whole - first) for first, whole in pairs if whole > first)


@dataclass(frozen=True)
class HeadTimes:
    """Seconds of each repeat over ``sentences`` sequences of ``tokens`` each, in batches of ``batch``."""

    sentences: int
    tokens: int
    batch: int
    whole: tuple[float, ...]

    @property
    def rate(self) -> tuple[float, ...]:
        """Sentences/s in each repeat."""
        return tuple(self.sentences / seconds for seconds in self.whole)


def spread(values: tuple[float, ...]) -> tuple[float, float, float] | None:
    """Return median, minimum and maximum; None where there are no values."""
    return (median(values), min(values), max(values)) if values else None


def timed_load(
    folder: Path,
    *,
    device: Device,
    threads: int | None,
    kernels: Kernels,
    kv_cache: KVCache = "exact",
    max_length: int | None = None,
    precision: Precision | None = None,
    clock: Clock = time.perf_counter,
) -> tuple[Model, float]:
    """Return the model and the seconds of loading it, without those of importing onnxruntime; errors as ``load``."""
    import_onnxruntime()
    began = clock()
    model = load(
        folder,
        device=device,
        threads=threads,
        kernels=kernels,
        kv_cache=kv_cache,
        max_length=max_length,
        precision=precision,
    )
    return model, clock() - began


def time_generation(
    model: TextGenerator,
    *,
    prompt_tokens: int | None = None,
    new_tokens: int | None = None,
    repeats: int = 5,
    report: Report = lambda _done, _total: None,
    clock: Clock = time.perf_counter,
) -> GenerationTimes:
    """Generate greedily from random prompts, without speculation and without an end token.

    Args:
        prompt_tokens, new_tokens: None for 512 and 128, or what the context has room for.
        report: called with the number of calls that are done, and of all.

    Raises:
        UsageError: more tokens than the context has room for, or fewer than one.
        PromptError: there is not enough memory.
    """
    facts = model.manifest.model
    if prompt_tokens is None:
        prompt_tokens = max(1, min(PROMPT, facts.context_length // 2, facts.context_length - (new_tokens or 0)))
    if new_tokens is None:
        new_tokens = min(NEW, facts.context_length - prompt_tokens)
    if new_tokens < 1:
        raise UsageError(f"a prompt of {prompt_tokens:,} tokens leaves no room in the model's context; give fewer")
    _check(facts.context_length, repeats, prompt_tokens, new_tokens)
    draw = np.random.default_rng(0)

    def seconds(count: int) -> float:
        prompt = draw.integers(0, facts.vocab_size, prompt_tokens).tolist()
        began = clock()
        model.generate(
            prompt,
            max_new_tokens=count,
            temperature=0.0,
            repetition_penalty=1.0,
            stop=(),
            eos_token_id=(),
            speculate=False,
        )
        return clock() - began

    calls = 1 + 2 * repeats
    seconds(new_tokens)
    first, whole = [], []
    for repeat in range(repeats):
        report(1 + 2 * repeat, calls)
        first.append(seconds(1))
        report(2 + 2 * repeat, calls)
        whole.append(seconds(new_tokens))
    report(calls, calls)
    return GenerationTimes(prompt_tokens, new_tokens, tuple(first), tuple(whole))


def time_head(
    model: Model,
    *,
    tokens: int | None = None,
    repeats: int = 5,
    report: Report = lambda _done, _total: None,
    clock: Clock = time.perf_counter,
) -> HeadTimes:
    """Run random sequences through a task head, without its tokenizer and its scores.

    Args:
        tokens: tokens of a sequence; None for 32, or what the context has room for.
        report: called with the number of passes that are done, and of all.

    Raises:
        UsageError: more tokens than the context has room for, or fewer than one.
        PromptError: there is not enough memory.
    """
    session = model.session
    facts, task = session.manifest.model, session.manifest.task
    tokens = min(SENTENCE, facts.context_length) if tokens is None else tokens
    _check(facts.context_length, repeats, tokens)
    # As SequenceClassifier: without a pad token the graph takes one sequence at a time.
    batch = 1 if task == "text-classification" and facts.pad_token_id is None else BATCH
    draw = np.random.default_rng(0)

    def seconds() -> float:
        sequences = draw.integers(0, facts.vocab_size, (SENTENCES, tokens)).tolist()
        began = clock()
        for _ in run_batches(session, sequences, OUTPUTS[task], batch):
            pass
        return clock() - began

    seconds()
    whole = []
    for repeat in range(repeats):
        report(1 + repeat, 1 + repeats)
        whole.append(seconds())
    report(1 + repeats, 1 + repeats)
    return HeadTimes(SENTENCES, tokens, batch, tuple(whole))


def _check(context: int, repeats: int, tokens: int, new: int = 0) -> None:
    for name, value, least in (("repeats", repeats, 1), ("tokens", tokens, 1), ("new tokens", new, 0)):
        if value < least:
            raise UsageError(f"{name} must be at least {least}, not {value}")
    if tokens + new > context:
        what = f"{tokens:,} tokens and {new:,} new ones are" if new else f"{tokens:,} tokens are"
        raise UsageError(f"{what} more than the model's context of {context:,}; give fewer")
