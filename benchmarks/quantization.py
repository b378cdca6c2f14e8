"""Measure what each quantization costs and changes, and write the table and the plots of quantization.md.

    python -m intaglio.benchmarks.quantization CHECKPOINT --scratch DIR     makes what is missing, measures the quality
        --rounds 5                                                  that many rounds of speed too, on a quiet machine
        --only NAME [--again]                                       one variant; measured anew
        --venvs DIR | --python OpenVINO=PATH | --gguf FILE          as for the benchmark ``runtime``
        --report benchmarks                                         where to write the table and the plots

artifacts/variants.py has the variants. Figures are recorded in DIR/quantization/records.jsonl, so that variants can be
measured one by one. Sizes and memory are in megabytes of 10^6 bytes.
"""

from pathlib import Path

import click

from .artifacts import environments
from .artifacts.store import ArtifactStore
from .artifacts.variants import OWN, QUANTIZED_PEERS
from .harness import prompts, quality_reference
from .harness.measurements import measurements
from .harness.records import Records
from .harness.rounds import Jobs, rounds
from .pages import quantization_page

VARIANTS = {variant.name: variant for variant in (*OWN, *QUANTIZED_PEERS)}
SECTIONS = ("quality", "speed")


@click.command(context_settings={"show_default": True})
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option("--scratch", required=True, type=click.Path(path_type=Path), help="Artifacts, texts and figures; 15 GB.")
@click.option("--rounds", "count", default=0, help="Rounds of timing.")
@click.option("--only", "names", multiple=True, type=click.Choice(list(VARIANTS)), metavar="NAME", help="Variants.")
@click.option("--again", is_flag=True, help="Forget the figures of the variants named by --only.")
@click.option("--venvs", type=click.Path(path_type=Path), help="Environments of the peers.  [default: DIR/venvs]")
@click.option("--python", "pythons", multiple=True, metavar="TOOL=PATH", help="An interpreter that has the tool.")
@click.option("--gguf", help="The checkpoint unquantized in a GGUF file; llama.cpp's variants are made from it.")
@click.option("--threads", default=2)
@click.option("--report", "report", type=click.Path(path_type=Path), help="Write quantization.md and its plots there.")
def main(
    checkpoint: Path,
    scratch: Path,
    count: int,
    names: tuple[str, ...],
    again: bool,
    venvs: Path | None,
    pythons: tuple[str, ...],
    gguf: str | None,
    threads: int,
    report: Path | None,
) -> None:
    checkpoint, scratch = checkpoint.absolute(), scratch.absolute()
    store = ArtifactStore(scratch, checkpoint, gguf)
    records = Records(scratch / "quantization" / "records.jsonl")
    prompt_file = scratch / "runtime" / f"prompts-{checkpoint.name}.json"
    prompts.write(prompt_file, checkpoint)
    if again and names:
        records.forget(SECTIONS, names)
    chosen = [VARIANTS[name] for name in names or VARIANTS]
    tools = [variant.tool for variant in chosen]
    found = environments.interpreters(tools, venvs or scratch / "venvs", environments.pairs(pythons))
    variants, failures = store.make_all([variant for variant in chosen if variant.tool in found], found)
    jobs = Jobs(store, found, prompt_file, threads)
    quality_reference.prepare(jobs)
    for section, number in zip(SECTIONS, (1, count), strict=True):
        waiting = measurements(section, variants, checkpoint, Path(), quality_reference.folder(scratch))
        failures += rounds(waiting, number, records, jobs)
    measured = quantization_page.measured(list(VARIANTS.values()), records, store)
    click.echo(quantization_page.table(measured))
    if report is not None:
        quantization_page.write(report, measured)
    if failures:
        raise click.ClickException("not everything ran:\n" + "\n".join(failures))


if __name__ == "__main__":
    main()
