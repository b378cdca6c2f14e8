"""Measure what each part of the default int4 quantization gains, alone and with the others, at the same bytes.

    python -m intaglio.benchmarks.ablation CHECKPOINT --scratch DIR --seed 0     makes and measures all that is missing
        --windows 16                                               windows of calibration text
        --only NAME                                                one of PARTS

A seed chooses the calibration text: one half of the default text or the other, paragraph by paragraph. The divergence
is measured on text that no choice was made by and no other page reports: WikiText-2's validation split, and modules of
the standard library that the benchmark ``quantization`` does not read. Two seeds can run at the same time, with
OMP_NUM_THREADS=1. Figures are recorded in DIR/ablation/records.jsonl.
"""

import json
import shutil
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
from intaglio.artifact import MANIFEST, read_manifest
from intaglio.exporter import QuantizeOptions, export
from intaglio.exporter.quantize import calibration, measure
from intaglio.exporter.quantize.allocation.mix import BITS_PER_WEIGHT
from intaglio.exporter.quantize.layers import hessian
from intaglio.exporter.quantize.layers.sensitivity import Sensitivity, measure_sensitivity
from intaglio.exporter.quantize.methods import gptq
from intaglio.exporter.quantize.options import Method
from intaglio.models.checkpoint import Checkpoint

from .harness.divergence import compare, write_reference
from .harness.engines import open_logits
from .harness.job import Job
from .harness.records import Key, Records
from .harness.windows import DATA, write_windows

WINDOWS, TOKENS = 8, 512  # windows of each text, and tokens of a window
MODULES = "argparse ast calendar configparser csv difflib dis ftplib gettext".split()


@dataclass(frozen=True)
class Part:
    """A variant: its method and the bits of its mix.

    Args:
        towards_float: whether GPTQ aims at the float model's outputs.
        damped: whether GPTQ's damping grows with the columns per token, or is the usual 0.01.
    """

    method: Method
    bits: Sequence[int]
    towards_float: bool = False
    damped: bool = True


PARTS = {
    "all": Part("gptq", (4, 5, 8), towards_float=True),
    "all but towards float": Part("gptq", (4, 5, 8)),
    "all but damping": Part("gptq", (4, 5, 8), towards_float=True, damped=False),
    "all but 5 bits": Part("gptq", (4, 8), towards_float=True),
    "GPTQ and 4, 8 bits": Part("gptq", (4, 8)),
    "4, 5, 8 bits, rounded": Part("rtn", (4, 5, 8)),
    "GPTQ towards float in 4 bits": Part("gptq", (4,), towards_float=True),
    "GPTQ in 4 bits": Part("gptq", (4,)),
    "GPTQ in 4 bits, not damped": Part("gptq", (4,), damped=False),
    "4 bits, rounded": Part("rtn", (4,)),
}


@click.command(context_settings={"show_default": True})
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option("--scratch", required=True, type=click.Path(path_type=Path), help="Artifacts, texts and figures; 6 GB.")
@click.option("--seed", type=click.IntRange(0, 1), default=0, help="The half of the calibration text.")
@click.option("--windows", default=16, help="Windows of calibration text.")
@click.option("--only", "names", multiple=True, type=click.Choice(list(PARTS)), metavar="NAME", help="Variants.")
@click.option("--threads", default=1)
def main(checkpoint: Path, scratch: Path, seed: int, windows: int, names: tuple[str, ...], threads: int) -> None:
    folder = scratch.absolute() / "ablation"
    folder.mkdir(parents=True, exist_ok=True)
    reference = _reference(checkpoint.absolute(), folder, threads)
    text = folder / f"half-{seed}.txt"
    paragraphs = calibration.DEFAULT_TEXT.read_text(encoding="utf-8").split("\n\n")
    text.write_text("\n\n".join(paragraphs[seed::2]), encoding="utf-8")
    once, size = _Once(), _bytes(checkpoint)
    for name in names or PARTS:
        key = Key("ablation", name, f"{windows} windows", seed)
        if Records(folder / "records.jsonl").has(key):
            continue
        part, out = PARTS[name], folder / f"artifact-{seed}"
        shutil.rmtree(out, ignore_errors=True)
        options = QuantizeOptions(part.method, calibration=text, windows=windows, bits=part.bits, target_size=size)
        most, damping = hessian.MOST if part.towards_float else 0.0, gptq.DAMPING if part.damped else 0.0
        with (
            patch.object(measure, "measure_sensitivity", once),
            patch.object(hessian, "MOST", most),
            patch.object(gptq, "DAMPING", damping),
        ):
            export(checkpoint, out, precision="int4", options=options)
        figures = compare(open_logits(_job(out, checkpoint, threads)), reference)
        figures["bytes"] = (out / read_manifest(out).data).stat().st_size
        Records(folder / "records.jsonl").add(key, figures)  # read anew: another process may have added to it
        click.echo(json.dumps({"seed": seed, "name": name, "bytes": figures["bytes"], "kl": figures["kl"]}))


def _bytes(checkpoint: Path) -> int:
    """Return the size of the weights in the default's bits."""
    tensors = Checkpoint(checkpoint).tensors.values()
    return int(sum(prod(tensor.shape) for tensor in tensors) * BITS_PER_WEIGHT / 8)


class _Once:
    """The sensitivities, measured once for all variants: the same text gives the same ones."""

    def __init__(self) -> None:
        self._found: Sensitivity | None = None

    def __call__(self, *arguments: Any) -> Sensitivity:
        if self._found is None:
            self._found = measure_sensitivity(*arguments)
        return self._found


def _job(artifact: Path, checkpoint: Path, threads: int) -> Job:
    return Job("quality", "intaglio", str(artifact), str(checkpoint), "", threads, TOKENS)


def _reference(checkpoint: Path, folder: Path, threads: int) -> Path:
    """Return the folder of the windows and of the float32 model's log-probabilities; write it if it is missing."""
    cache = folder / "reference"
    if (cache / "reference.npy").is_file():
        return cache
    library = Path(sysconfig.get_path("stdlib"))
    code = "\n".join((library / f"{name}.py").read_text(encoding="utf-8") for name in MODULES)
    texts = {"WikiText-2, validation": (DATA / "wikitext2-valid.txt").read_text(encoding="utf-8"), "Python": code}
    write_windows(cache, texts, checkpoint, WINDOWS, TOKENS)
    if not (folder / "fp32" / MANIFEST).is_file():
        export(checkpoint, folder / "fp32")
    write_reference(open_logits(_job(folder / "fp32", checkpoint, threads)), cache)
    return cache


if __name__ == "__main__":
    main()
