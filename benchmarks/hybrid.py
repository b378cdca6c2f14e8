"""Measure layers with sliding windows: intaglio's attention and ONNX Runtime's, with float32 and int8 caches.

    python -m intaglio.benchmarks.hybrid --out DIR

Writes a checkpoint of random weights and its int4 artifact to DIR, unless they are there, and DIR/hybrid.json with the
time of each step; prints a table. Each measurement has a process of its own. ``--growth`` is the length of a text at
whose end intaglio's attention alone is measured: where a step costs more than those beside it, ``slowest`` shows it.
The steps of a measurement are enough for full buffers to be moved several times.

With the shape of the 1.2B, a text of 131,072 tokens is read for about half an hour.
"""

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from .artifacts.random_checkpoint import SHAPES, write
from .harness.job import Job
from .harness.rounds import FailedError, fill_page_cache, run

STEPS = 600  # more than two times the 256 positions that a buffer of a window of 4,096 drops at once
HEADER = (
    "attention",
    "cache",
    "tokens",
    "prefill tok/s",
    "decode tok/s",
    "median ms",
    "p99 ms",
    "slowest ms",
    "cache MB",
)


class Case(NamedTuple):
    """A measurement: ``tokens`` is the length of the prompt."""

    attention: str
    cache: str
    tokens: int


@click.command(context_settings={"show_default": True})
@click.option(
    "--shape",
    type=click.Choice([name for name, config in SHAPES.items() if "sliding_window" in config]),
    default="exaone4-1.2b-hybrid",
    help="The checkpoint that is written.",
)
@click.option("--contexts", default="512,8192,32768", help="Tokens of the prompts, with commas between them.")
@click.option("--growth", default=131_072, help="Tokens of the longest text; 0 for none.")
@click.option("--steps", default=STEPS, help="Decode steps of a measurement.")
@click.option("--rounds", "count", default=3, help="How often each is measured; the longest text once.")
@click.option("--threads", default=2, help="Threads, each on a processor of its own.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where the files go.")
def main(shape: str, contexts: str, growth: int, steps: int, count: int, threads: int, out: Path) -> None:
    lengths = [int(length) for length in contexts.split(",")]
    artifact = _artifact(out, shape)
    prompts = out / "prompts.json"
    longest = max([*lengths, growth])
    vocabulary = int(str(SHAPES[shape]["vocab_size"]))
    prompts.write_text(json.dumps({"long": np.random.default_rng(0).integers(0, vocabulary, longest).tolist()}))
    records = []
    for number, case in _cases(lengths, growth - steps - 1 if growth else 0, count):
        settings = {"context": case.tokens, "steps": steps, "keep": True, "attention": case.attention}
        settings |= {} if case.cache == "float32" else {"kv_cache": case.cache}
        job = Job("hybrid", "intaglio", str(artifact), "", str(prompts), threads, longest, settings)
        fill_page_cache(artifact)
        click.echo(f"round {number + 1}: {case.attention} {case.cache} {case.tokens}", err=True)
        try:
            records.append({**case._asdict(), "round": number, **run(sys.executable, job)})
        except FailedError as error:
            click.echo(f"{case.attention} {case.cache} {case.tokens}: {error}", err=True)
        (out / "hybrid.json").write_text(json.dumps({"shape": shape, "threads": threads, "records": records}))
    for row in table(records):
        click.echo(f"| {' | '.join(row)} |")


def _cases(lengths: Sequence[int], longest: int, count: int) -> Iterator[tuple[int, Case]]:
    """Yield the number of a round and a case; neighbours differ in the attention alone."""
    for number in range(count):
        for tokens in lengths:
            for attention, cache in (("onnxruntime", "float32"), ("intaglio", "float32"), ("intaglio", "int8")):
                yield number, Case(attention, cache, tokens)
    if longest > 0:
        for cache in ("float32", "int8"):
            yield 0, Case("intaglio", cache, longest)


def _artifact(out: Path, shape: str) -> Path:
    """Return the int4 artifact of a checkpoint of random weights, and make both where they are not there."""
    from intaglio.exporter import QuantizeOptions, quantize

    artifact, checkpoint = out / f"{shape}-int4", out / shape
    out.mkdir(parents=True, exist_ok=True)
    if not artifact.exists():
        shutil.rmtree(checkpoint, ignore_errors=True)
        quantize(write(checkpoint, shape), artifact, precision="int4", options=QuantizeOptions(method="rtn"))
    return artifact


def table(records: Sequence[dict[str, Any]]) -> list[Sequence[str]]:
    """Return the rows of a table: of each case the round with the fastest median step, and of prefill the fastest."""
    rows: list[Sequence[str]] = [HEADER, ("---",) * 3 + ("---:",) * 6]
    for case in dict.fromkeys((one["attention"], one["cache"], one["tokens"]) for one in records):
        found = [one for one in records if (one["attention"], one["cache"], one["tokens"]) == case]
        best = min(found, key=lambda one: float(one["median"]))
        prefill = best["context"] / min(one["prefill"] for one in found)
        figures = (best["decode"], best["median"], best["p99"], best["slowest"])
        cells = [f"{prefill:,.0f}", *(f"{figure:,.2f}" for figure in figures), f"{best['rss'] - best['loaded']:,.0f}"]
        rows.append((best["attention"], best["cache"], f"{best['tokens']:,}", *cells))
    return rows


if __name__ == "__main__":
    main()
