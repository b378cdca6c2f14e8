"""``intaglio bench``: how fast an artifact runs on this machine."""

import platform
from typing import TYPE_CHECKING, Any, Literal

import click

from ...artifact import Manifest
from ...errors import UsageError
from ..options import Device, KVCache, example, json_option, kv_cache_option, runtime_options
from ..progress import progress
from ..show import print_facts, print_json, size

if TYPE_CHECKING:
    from ...runtime.measure import GenerationTimes, HeadTimes

PRODUCTS = "MatMulNBits"
STAGE = "calls"


@click.command(
    short_help="Measure an artifact's speed and memory on this machine.",
    epilog=example(
        "intaglio bench out",
        "intaglio bench out --prompt-tokens 64 --new-tokens 32 --repeats 3 --json",
        "intaglio bench out --kernels onnxruntime",
        "intaglio bench out --kv-cache int8",
    ),
)
@click.argument("artifact")
@click.option(
    "--prompt-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tokens of the prompt, or of a sentence.  [default: 512, or 32, or what the context has room for]",
)
@click.option(
    "--new-tokens",
    type=click.IntRange(min=2),
    metavar="N",
    help="Tokens to generate.  [default: 128, or what the context has room for]",
)
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="Times to run.")
@click.option(
    "--kernels",
    type=click.Choice(["auto", "onnxruntime"]),
    default="auto",
    show_default=True,
    help="`auto`: intaglio's own, where they can run; `onnxruntime`: ONNX Runtime's.",
)
@kv_cache_option
@runtime_options
@json_option
def command(
    artifact: str,
    prompt_tokens: int | None,
    new_tokens: int | None,
    repeats: int,
    kernels: Literal["auto", "onnxruntime"],
    kv_cache: KVCache,
    device: Device,
    threads: int | None,
    revision: str | None,
    as_json: bool,
) -> None:
    """Measure how fast ARTIFACT runs on this machine, and in how much memory.

    Of a text-generation artifact: the seconds to load it, prefill in tokens/s, the time to the first token, and decode
    in tokens/s, greedily, from random tokens, without speculation. Of another: sentences/s, in batches, without the
    tokenizer. Figures are medians, the least and the most of the repeats in brackets; loading is timed once, with
    whatever of the files the system still has in memory.
    """
    from ...runtime import TextGenerator
    from ...runtime.engine.machine import peak_rss
    from ...runtime.engine.onnxruntime import import_onnxruntime
    from ...runtime.folder import open_folder
    from ...runtime.kernels import instructions
    from ...runtime.measure import time_generation, time_head, timed_load

    folder, manifest = open_folder(artifact, revision)
    if new_tokens is not None and manifest.task != "text-generation":
        raise UsageError(f"{artifact} is a {manifest.task} artifact, which generates nothing; leave out --new-tokens")
    import_onnxruntime()
    before = peak_rss()
    with progress() as show:

        def report(done: int, total: int) -> None:
            show(STAGE, done, total)

        model, seconds = timed_load(folder, device=device, threads=threads, kernels=kernels, kv_cache=kv_cache)
        times: GenerationTimes | HeadTimes
        if isinstance(model, TextGenerator):
            times = time_generation(
                model, prompt_tokens=prompt_tokens, new_tokens=new_tokens, repeats=repeats, report=report
            )
        else:
            times = time_head(model, tokens=prompt_tokens, repeats=repeats, report=report)
    session = model.session
    told: dict[str, Any] = {
        "artifact": artifact,
        **_model(manifest),
        "machine": f"{platform.machine()}, {platform.system()}",
        "onnxruntime": session.ort.__version__,
        "device": device,
        "threads": session.threads,
        "own_kernels": list(session.intaglio_kernels),
        "kv_cache": session.cache_dtype,
        "instructions": instructions() if PRODUCTS in session.intaglio_kernels else None,
        "repeats": repeats,
        "load_seconds": seconds,
        **_figures(times),
        "peak_rss_bytes": peak_rss(),
        "rss_bytes_before_loading": before,
    }
    if as_json:
        print_json(told)
    else:
        print_facts(_facts(told))


def _model(manifest: Manifest) -> dict[str, str]:
    return {name: getattr(manifest, name) for name in ("family", "task", "precision", "target")}


def _figures(times: "GenerationTimes | HeadTimes") -> dict[str, Any]:
    """What was measured, by the names it has in --json."""
    from ...runtime.measure import GenerationTimes

    if isinstance(times, GenerationTimes):
        return {
            "prompt_tokens": times.prompt_tokens,
            "new_tokens": times.new_tokens,
            "prefill_tokens_per_second": _summary(times.prefill),
            "first_token_seconds": _summary(times.first),
            "decode_tokens_per_second": _summary(times.decode),
        }
    return {
        "sentences": times.sentences,
        "sentence_tokens": times.tokens,
        "batch_size": times.batch,
        "sentences_per_second": _summary(times.rate),
    }


def _summary(values: tuple[float, ...]) -> dict[str, float] | None:
    from ...runtime.measure import spread

    found = spread(values)
    return None if found is None else dict(zip(("median", "least", "most"), found, strict=True))


def _facts(told: dict[str, Any]) -> list[tuple[str, str]]:
    facts = [
        ("artifact", told["artifact"]),
        ("model", f"{told['family']}, {told['task']}, {told['precision']}"),
        ("runs on", f"{told['device']}, {told['threads']} thread{'s' * (told['threads'] != 1)}"),
        ("kernels", _kernels(told["own_kernels"], told["instructions"])),
        ("load", f"{told['load_seconds']:.2f} s"),
    ]
    if told["task"] == "text-generation":
        decode = _words(told["decode_tokens_per_second"], "tokens/s")
        facts += [
            ("prefill", f"{_words(told['prefill_tokens_per_second'], 'tokens/s')}, {told['prompt_tokens']:,} tokens"),
            ("first token", _words(told["first_token_seconds"], "s")),
            ("decode", f"{decode}, {told['new_tokens']:,} tokens"),
        ]
    else:
        rate = _words(told["sentences_per_second"], "sentences/s")
        facts.append(("speed", f"{rate}, of {told['sentence_tokens']:,} tokens, {told['batch_size']} at a time"))
    if told["peak_rss_bytes"] is not None:
        before = f", {size(told['rss_bytes_before_loading'])} of it before loading"
        facts.append(("memory", f"{size(told['peak_rss_bytes'])} at its peak{before}"))
    return facts


def _kernels(own: list[str], instructions: str | None) -> str:
    """``intaglio's for MatMulNBits (AVX2) and GroupQueryAttention, otherwise ONNX Runtime's``"""
    if not own:
        return "ONNX Runtime's"
    names = [f"{name} ({instructions})" if name == PRODUCTS else name for name in own]
    return f"intaglio's for {' and '.join(names)}, otherwise ONNX Runtime's"


def _words(found: dict[str, float] | None, unit: str) -> str:
    """``58.3 tokens/s (57.9 to 58.6)``"""
    if found is None:
        return "too quick to tell with so few tokens"
    median, least, most = (_number(found[name]) for name in ("median", "least", "most"))
    return f"{median} {unit} ({least} to {most})"


def _number(value: float) -> str:
    """Three digits, and all of those before the point: ``0.0123``, ``58.3``, ``12,345``."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
