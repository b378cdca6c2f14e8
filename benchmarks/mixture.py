"""Measure a Qwen2-MoE of random weights: intaglio's int4 on its kernels and on ONNX Runtime's, and llama.cpp's Q4_0.

    python -m intaglio.benchmarks.mixture --scratch DIR             makes what is missing, measures, prints the tables
        --llama-python DIR/venvs/llama.cpp/bin/python               an interpreter with llama-cpp-python and gguf
        --rounds 5 --report benchmarks                              medians of 5 rounds; writes mixture.md there
        --rounds 0 --report benchmarks                              writes the report of the recorded figures
        --layers 4 --vocabulary 151936 --kind Q4_K_M                another model, another format of llama.cpp

The shape is that of Qwen1.5-MoE-A2.7B with fewer layers, since a step's time grows with them: 60 experts of 2048 to
1408 in each, 4 chosen, and a shared one of 5632. Weights are random; int4 is by rounding, and nothing is checked for
quality. Both tools run the same prompts with as many threads, in rounds, each measurement in a process of its own
(section ``speed`` of the harness). Figures are recorded in DIR, so that an interrupted run continues. Four layers take
5.4 GB as a checkpoint, as much again as GGUF, and 1.6 GB in each int4 format. Measure on a quiet machine.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import numpy as np

from .artifacts.environments import process_environment
from .artifacts.random_checkpoint import SHAPES, write
from .artifacts.store import ArtifactStore
from .artifacts.variants import ALL, Variant
from .harness.measurements import Measurement
from .harness.records import Records
from .harness.rounds import CAPACITY, Jobs, rounds
from .harness.sections.speed import LONG
from .harness.token_counts import parse_token_counts
from .pages import mixture_page

MIXTURES = tuple(name for name, config in SHAPES.items() if "num_experts" in config)
OWN = ALL["int4-rtn-b32"]
ONNXRUNTIME = replace(OWN, name="int4-rtn-b32-onnxruntime", options={}, artifact=OWN.name)
"""The same artifact on ONNX Runtime's kernels, its QMoE among them."""
LLAMA = {"Q4_0": ALL["llama-q4-0"], "Q4_K_M": ALL["llama-q4-k-m"], "Q8_0": ALL["llama-q8-0"]}
GGUF_WRITER = "intaglio.benchmarks.artifacts.mixture_gguf"


@click.command(context_settings={"show_default": True})
@click.option("--scratch", required=True, type=click.Path(path_type=Path), help="Where the files and figures go.")
@click.option("--llama-python", help="An interpreter with llama-cpp-python and gguf; without it llama.cpp is left out.")
@click.option("--kind", type=click.Choice(list(LLAMA)), default="Q4_0", help="llama.cpp's format.")
@click.option("--shape", type=click.Choice(MIXTURES), default="qwen1.5-moe-a2.7b", help="The model's sizes.")
@click.option("--layers", default=4, type=click.IntRange(1), help="Layers, each with its experts.")
@click.option("--vocabulary", type=click.IntRange(1200), help="Tokens.  [default: the shape's]")
@click.option(
    "--prompts",
    "lengths",
    callback=partial(parse_token_counts, most=CAPACITY - 1),
    default=",".join(map(str, LONG)),
    help="Tokens of prompts.",
)
@click.option("--rounds", "count", default=5, help="Rounds; 0 writes the report of the recorded figures.")
@click.option("--threads", default=2, help="Threads, each on a processor of its own.")
@click.option("--again", is_flag=True, help="Forget the figures of this model.")
@click.option("--report", type=click.Path(path_type=Path), help="Write mixture.md there.")
def main(
    scratch: Path,
    llama_python: str | None,
    kind: str,
    shape: str,
    layers: int,
    vocabulary: int | None,
    lengths: list[int],
    count: int,
    threads: int,
    again: bool,
    report: Path | None,
) -> None:
    size = vocabulary or int(str(SHAPES[shape]["vocab_size"]))
    folder = (scratch / "mixture" / f"{shape}-{layers}-layers-{size}").absolute()
    checkpoint = _checkpoint(folder, shape, {"num_hidden_layers": layers, "vocab_size": size})
    pythons = {"intaglio": sys.executable} | ({"llama.cpp": llama_python} if llama_python else {})
    failures = []
    gguf = None
    if llama_python is not None:
        try:
            gguf = _gguf(folder, checkpoint, llama_python)
        except click.ClickException as error:
            failures.append(error.message)
    store = ArtifactStore(folder, checkpoint, None if gguf is None else str(gguf))
    chosen = [OWN, ONNXRUNTIME, *([LLAMA[kind]] if gguf is not None else [])]
    variants, failed = store.make_all(chosen, pythons)
    records = Records(folder / "records.jsonl")
    if again:
        records.forget(["speed", "bandwidth"])
    file = folder / "prompts.json"
    file.write_text(json.dumps({"long": np.random.default_rng(0).integers(0, size, CAPACITY).tolist()}))
    failures += failed + rounds(measurements(variants, lengths), count, records, Jobs(store, pythons, file, threads))
    if not variants:
        raise click.ClickException("nothing could be made:\n" + "\n".join(failures))
    described = _described(SHAPES[shape], shape, layers, size)
    text = mixture_page.body(records, variants, store, described, threads, lengths)
    click.echo(text)
    if report is not None:
        mixture_page.write(report, text)
    if failures:
        raise click.ClickException("not everything ran:\n" + "\n".join(failures))


def measurements(variants: Sequence[Variant], lengths: Sequence[int]) -> list[Measurement]:
    """Return one round: the machine's bandwidth, and the speed of each variant."""
    found = [Measurement("speed", variant, machine="bandwidth") for variant in variants[:1]]
    for variant in variants:
        settings: dict[str, object] = {"long": list(lengths)}
        if variant == ONNXRUNTIME:
            settings["kernels"] = "onnxruntime"
        found.append(Measurement("speed", variant, settings=settings))
    return found


def _checkpoint(folder: Path, shape: str, changes: Mapping[str, object]) -> Path:
    """Return the checkpoint of random weights, and write it where it is not there."""
    path, unfinished = folder / "checkpoint", folder / "checkpoint.unfinished"
    if not path.exists():
        click.echo(f"{path}: writing it", err=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        write(unfinished, shape, changes=changes).rename(path)
    return path


def _gguf(folder: Path, checkpoint: Path, python: str) -> Path:
    """Return the checkpoint as an unquantized GGUF file, and write it where it is not there.

    Raises:
        click.ClickException: it could not be written; with the end of what was printed.
    """
    path, unfinished = folder / "checkpoint.gguf", folder / "unfinished.gguf"
    if not path.exists():
        click.echo(f"{path}: writing it", err=True)
        command = [python, "-m", GGUF_WRITER, str(checkpoint), str(unfinished)]
        try:
            done = subprocess.run(command, env=process_environment(), capture_output=True, text=True, check=False)
        except OSError as error:
            raise click.ClickException(f"--llama-python {python} does not run: {error}") from None
        if done.returncode != 0:
            raise click.ClickException(f"{path} could not be written:\n{done.stderr[-1500:]}")
        unfinished.rename(path)
    return path


def _described(config: Mapping[str, object], shape: str, layers: int, vocabulary: int) -> str:
    return (
        f"{shape} with {layers} layer{'s' if layers != 1 else ''} and {vocabulary:,} tokens: hidden "
        f"{config['hidden_size']}, {config['num_experts']} experts of {config['moe_intermediate_size']} in each layer, "
        f"{config['num_experts_per_tok']} chosen, a shared one of {config['shared_expert_intermediate_size']}"
    )


if __name__ == "__main__":
    main()
