"""Measure layers with sliding windows: intaglio's attention and ONNX Runtime's, with float32 and int8 caches.

    python -m intaglio.benchmarks.hybrid --scratch DIR          makes the artifact, measures, prints the tables
        --rounds 5 --report benchmarks                          medians of 5 rounds; writes hybrid.md there
        --rounds 0 --growth 0 --report benchmarks               writes the report of the recorded figures

The checkpoint has random weights and the shape of an EXAONE 4.0 with windows; int4 is by rounding, and nothing is
checked for quality. Each measurement has a process of its own; figures are recorded in DIR, so that an interrupted run
continues. ``--growth`` is the length of a text at whose end intaglio's attention alone is measured, once: where a step
costs more than those beside it, ``slowest`` shows it. The steps of a measurement are enough for full buffers to be
moved several times.

With the shape of the 1.2B, a text of 131,072 tokens is read for about half an hour. Measure on a quiet machine.
"""

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np

from .artifacts.random_checkpoint import SHAPES, write
from .artifacts.variants import Variant
from .harness.job import Job
from .harness.measurements import INT8_CACHE, Measurement
from .harness.records import Records
from .harness.rounds import rounds
from .harness.token_counts import parse_token_counts
from .pages import hybrid_page

STEPS = 600  # more than two times the 256 positions that a buffer of a window of 4,096 drops at once
SECTION = hybrid_page.SECTION
HYBRIDS = tuple(name for name, config in SHAPES.items() if "sliding_window" in config)


@click.command(context_settings={"show_default": True})
@click.option("--scratch", required=True, type=click.Path(path_type=Path), help="Where the files and figures go.")
@click.option("--shape", type=click.Choice(HYBRIDS), default="exaone4-1.2b-hybrid", help="The model's sizes.")
@click.option("--contexts", "lengths", callback=parse_token_counts, default="512,8192,32768", help="Tokens of prompts.")
@click.option("--growth", default=131_072, help="Tokens of the longest text; 0 for none.")
@click.option("--steps", default=STEPS, help="Decode steps of a measurement.")
@click.option("--rounds", "count", default=3, help="Rounds; the longest text is measured once.")
@click.option("--threads", default=2, help="Threads, each on a processor of its own.")
@click.option("--again", is_flag=True, help="Forget the figures of this shape.")
@click.option("--report", type=click.Path(path_type=Path), help="Write hybrid.md and its plots there.")
def main(
    scratch: Path,
    shape: str,
    lengths: list[int],
    growth: int,
    steps: int,
    count: int,
    threads: int,
    again: bool,
    report: Path | None,
) -> None:
    folder = (scratch / "hybrid" / shape).absolute()
    records = Records(folder / "records.jsonl")
    if again:
        records.forget([SECTION])
    failures = []
    if count or growth:
        jobs = _jobs(_artifact(folder, shape), folder / "prompts.json", shape, max([*lengths, growth]), threads)
        failures += rounds(measurements(lengths, steps), count, records, jobs)
        if growth:
            failures += rounds([own(growth - steps - 1, steps, int8) for int8 in (False, True)], 1, records, jobs)
    text = hybrid_page.body(records, f"{shape}: {_described(SHAPES[shape])}", threads)
    click.echo(text)
    if report is not None:
        hybrid_page.write(report, text, records)
    if failures:
        raise click.ClickException("not everything ran:\n" + "\n".join(failures))


def measurements(lengths: Sequence[int], steps: int) -> list[Measurement]:
    """Return one round: at each length both attentions, which differ in nothing else, and the int8 cache."""
    found = []
    for tokens in lengths:
        settings = {"context": tokens, "steps": steps, "keep": True, "attention": "onnxruntime"}
        theirs = Measurement(SECTION, _attention("onnxruntime"), str(tokens), settings)
        found += [theirs, own(tokens, steps, int8=False), own(tokens, steps, int8=True)]
    return found


def own(tokens: int, steps: int, int8: bool) -> Measurement:
    """Return the measurement of intaglio's attention after a prompt of ``tokens``."""
    settings = {"context": tokens, "steps": steps, "keep": True, "attention": "intaglio"}
    if int8:
        settings["kv_cache"] = "int8"
    return Measurement(SECTION, _attention("intaglio"), f"{tokens}{INT8_CACHE if int8 else ''}", settings)


def _attention(name: str) -> Variant:
    return Variant(name, "RTN", "4", "32")


def _artifact(folder: Path, shape: str) -> Path:
    """Return the int4 artifact of a checkpoint of random weights, and make both where they are not there."""
    from intaglio.exporter import QuantizeOptions, quantize

    artifact, checkpoint = folder / "int4", folder / "checkpoint"
    if not artifact.exists():
        click.echo(f"{artifact}: writing it", err=True)
        shutil.rmtree(checkpoint, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        quantize(write(checkpoint, shape), artifact, precision="int4", options=QuantizeOptions(method="rtn"))
    return artifact


def _jobs(
    artifact: Path, prompts: Path, shape: str, capacity: int, threads: int
) -> Callable[[Measurement], tuple[str, Job]]:
    """Return what makes a measurement's job; ``capacity`` is the tokens of the longest text."""
    vocabulary = int(str(SHAPES[shape]["vocab_size"]))
    prompts.write_text(json.dumps({"long": np.random.default_rng(0).integers(0, vocabulary, capacity).tolist()}))

    def job(measurement: Measurement) -> tuple[str, Job]:
        settings = measurement.settings
        return sys.executable, Job(SECTION, "intaglio", str(artifact), "", str(prompts), threads, capacity, settings)

    return job


def _described(config: dict[str, object]) -> str:
    return (
        f"{config['num_hidden_layers']} layers, hidden {config['hidden_size']}, {config['num_key_value_heads']} key "
        f"heads of {config['head_dim']}, windows of {config['sliding_window']:,} tokens in the pattern "
        f"{config['sliding_window_pattern']}"
    )


if __name__ == "__main__":
    main()
