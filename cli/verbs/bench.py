"""``intaglio bench``: measure the speed and memory of an artifact on this machine, or a server's under load."""

import platform
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import click

from ...artifact import Manifest
from ...errors import UsageError
from ..load.options import ServerLoad, load_options, refuse_artifact_options, refuse_load_options
from ..load.server import bench_server
from ..loading import Loading
from ..options import example, json_option, kv_cache_option, loading_options
from ..progress import progress
from ..show import print_facts, print_json
from ..sizes import size

if TYPE_CHECKING:
    from ...runtime.measure import GenerationTimes, HeadTimes

MATMUL = "MatMulNBits"


@click.command(
    short_help="Measure an artifact's speed and memory, or a server under load.",
    epilog=example(
        "intaglio bench out",
        "intaglio bench out --prompt-tokens 64 --new-tokens 32 --repeats 3 --json",
        "intaglio bench out --kernels onnxruntime",
        "intaglio bench out --kv-cache int8",
        "intaglio bench --serve http://127.0.0.1:8000 --clients 8 --duration 60",
        "intaglio bench --serve http://127.0.0.1:8000 --rate 2 --prefix-tokens 1000 --plot load.svg",
    ),
)
@click.argument("artifact", required=False)
@click.option(
    "--prompt-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tokens of the prompt, or of a sentence.  [default: 512, or 32, or what fits into the context; "
    "128 with --serve]",
)
@click.option(
    "--new-tokens",
    type=click.IntRange(min=2),
    metavar="N",
    help="Tokens to generate.  [default: 128, or what fits into the context; 64 with --serve]",
)
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="Measured runs.")
@click.option(
    "--kernels",
    type=click.Choice(["auto", "onnxruntime"]),
    default="auto",
    show_default=True,
    help="`auto`: intaglio's kernels where they can run; `onnxruntime`: only ONNX Runtime's.",
)
@kv_cache_option
@loading_options
@load_options
@json_option
@click.pass_context
def command(
    context: click.Context,
    artifact: str | None,
    prompt_tokens: int | None,
    new_tokens: int | None,
    repeats: int,
    kernels: Literal["auto", "onnxruntime"],
    loading: Loading,
    load: ServerLoad,
    as_json: bool,
) -> None:
    """Measure the speed and the peak memory of ARTIFACT on this machine.

    For text generation: load time, prefill in tokens/s, time to the first token, and decode in tokens/s, with random
    tokens, greedy, without speculation. For other tasks: sentences/s, in batches, without the tokenizer. Figures are
    medians, with the minimum and maximum of the runs in parentheses; loading is timed once, with the files that the
    system has cached.

    With --serve, requests are sent to a running server, and the times to the first token and between tokens, the
    throughput and the errors are printed. Times count from the moment that a request was due.
    """
    if load.serve is not None:
        refuse_artifact_options(context)
        bench_server(load, prompt_tokens, new_tokens, as_json)
        return
    refuse_load_options(load)
    if artifact is None:
        raise UsageError("there is nothing to measure; give an ARTIFACT, or a server's address with --serve URL")
    from ...machine import peak_rss
    from ...runtime import TextGenerator
    from ...runtime.engine.onnxruntime import import_onnxruntime
    from ...runtime.folder import open_folder
    from ...runtime.kernels import instructions
    from ...runtime.measure import time_generation, time_head, timed_load

    folder, manifest = open_folder(artifact, loading.revision, loading.precision)
    if new_tokens is not None and manifest.task != "text-generation":
        raise UsageError(
            f"{artifact} is a {manifest.task} artifact and does not generate tokens; leave out --new-tokens"
        )
    import_onnxruntime()
    before = peak_rss()
    with progress() as bars:
        report = partial(bars, "calls")
        model, seconds = timed_load(
            folder,
            device=loading.device,
            threads=loading.threads,
            kernels=kernels,
            kv_cache=loading.kv_cache,
            max_length=_longest(manifest, prompt_tokens, new_tokens) if loading.kv_cache == "auto" else None,
            precision=loading.precision,
        )
        times: GenerationTimes | HeadTimes
        if isinstance(model, TextGenerator):
            times = time_generation(
                model, prompt_tokens=prompt_tokens, new_tokens=new_tokens, repeats=repeats, report=report
            )
        else:
            times = time_head(model, tokens=prompt_tokens, repeats=repeats, report=report)
    session = model.session
    document: dict[str, Any] = {
        "artifact": artifact,
        **_model(manifest),
        "machine": f"{platform.machine()}, {platform.system()}",
        "onnxruntime": session.ort.__version__,
        "device": loading.device,
        "threads": session.threads,
        "own_kernels": list(session.intaglio_kernels),
        "kv_cache": session.cache_dtype,
        "kv_cache_reason": session.kv_cache_reason,
        "instructions": instructions() if MATMUL in session.intaglio_kernels else None,
        "repeats": repeats,
        "load_seconds": seconds,
        **_figures(times),
        "peak_rss_bytes": peak_rss(),
        "rss_bytes_before_loading": before,
    }
    if as_json:
        print_json(document)
    else:
        print_facts(_facts(document))


def _longest(manifest: Manifest, prompt_tokens: int | None, new_tokens: int | None) -> int:
    """Return the tokens of a run, prompt and continuation together."""
    from ...runtime.measure import NEW, PROMPT

    wanted = (PROMPT if prompt_tokens is None else prompt_tokens) + (NEW if new_tokens is None else new_tokens)
    return min(wanted, manifest.model.context_length)


def _model(manifest: Manifest) -> dict[str, str]:
    return {name: getattr(manifest, name) for name in ("family", "task", "precision", "target")}


def _figures(times: "GenerationTimes | HeadTimes") -> dict[str, Any]:
    """Return the measurements by their names in --json."""
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

    figures = spread(values)
    return None if figures is None else dict(zip(("median", "least", "most"), figures, strict=True))


def _facts(document: dict[str, Any]) -> list[tuple[str, str]]:
    facts = [
        ("artifact", document["artifact"]),
        ("model", f"{document['family']}, {document['task']}, {document['precision']}"),
        ("runs on", f"{document['device']}, {document['threads']} thread{'s' * (document['threads'] != 1)}"),
        ("kernels", _kernels(document["own_kernels"], document["instructions"])),
        ("load", f"{document['load_seconds']:.2f} s"),
    ]
    if document.get("kv_cache_reason") is not None:
        facts.append(("KV cache", f"{document['kv_cache']}, for {document['kv_cache_reason']}"))
    if document["task"] == "text-generation":
        prefill = _format(document["prefill_tokens_per_second"], "tokens/s")
        decode = _format(document["decode_tokens_per_second"], "tokens/s")
        facts += [
            (
                "prefill",
                f"{prefill}, {document['prompt_tokens']:,} tokens",
            ),
            ("first token", _format(document["first_token_seconds"], "s")),
            ("decode", f"{decode}, {document['new_tokens']:,} tokens"),
        ]
    else:
        rate = _format(document["sentences_per_second"], "sentences/s")
        facts.append(("speed", f"{rate}, {document['sentence_tokens']:,} tokens, batch size {document['batch_size']}"))
    if document["peak_rss_bytes"] is not None:
        before = size(document["rss_bytes_before_loading"])
        facts.append(("memory", f"{size(document['peak_rss_bytes'])} peak, {before} before loading"))
    return facts


def _kernels(operators: list[str], instructions: str | None) -> str:
    """Return ``intaglio's for MatMulNBits (AVX2) and GroupQueryAttention, otherwise ONNX Runtime's``."""
    if not operators:
        return "ONNX Runtime's"
    names = [f"{name} ({instructions})" if name == MATMUL else name for name in operators]
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"intaglio's for {listed}, otherwise ONNX Runtime's"


def _format(summary: dict[str, float] | None, unit: str) -> str:
    """Return ``58.3 tokens/s (57.9 to 58.6)``."""
    if summary is None:
        return "too fast to measure with so few tokens"
    median, least, most = (_number(summary[name]) for name in ("median", "least", "most"))
    return f"{median} {unit} ({least} to {most})"


def _number(value: float) -> str:
    """Return three digits, or all digits before the decimal point: ``0.0123``, ``58.3``, ``12,345``."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
