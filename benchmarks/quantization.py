"""Measure what each quantization costs and changes, and write the table and the plots of quantization.md.

    python -m intaglio.benchmarks.quantization CHECKPOINT --scratch DIR     makes what is missing, measures the quality
        --rounds 5                                                  that many rounds of speed too, on a quiet machine
        --only NAME [--again]                                       one variant; measured anew
        --artifact NAME=FOLDER                                      artifacts of intaglio's, instead of the variants
        --text NAME=FILE                                            another text, or another file of a text
        --venvs DIR | --python OpenVINO=PATH | --gguf FILE          as for the benchmark ``runtime``
        --report benchmarks                                         where to write the table and the plots

The texts are prose (WikiText-2's test split), Python source and chats, and those that are named; a .jsonl file holds
chats as for `intaglio quantize --calibration`. To compare calibration texts, quantize with each and name the artifacts:

    intaglio quantize CHECKPOINT a --calibration chats.jsonl --no-parity
    python -m intaglio.benchmarks.quantization CHECKPOINT --scratch DIR --artifact chats=a --artifact self=b

artifacts/variants.py has the variants. Figures are recorded in DIR/quantization/records.jsonl, so that variants can be
measured one by one. Sizes and memory are in megabytes of 10^6 bytes.
"""

from pathlib import Path

import click
from intaglio.artifact import MANIFEST

from .artifacts import environments
from .artifacts.store import ArtifactStore
from .artifacts.variants import OWN, QUANTIZED_PEERS, Variant
from .harness import prompts, quality_reference
from .harness.measurements import measurements
from .harness.records import Records
from .harness.rounds import Jobs, rounds
from .harness.windows import texts
from .pages import quantization_page

GIVEN = "given"
VARIANTS = {variant.name: variant for variant in (*OWN, *QUANTIZED_PEERS)}
SECTIONS = ("quality", "speed")


@click.command(context_settings={"show_default": True})
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option("--scratch", required=True, type=click.Path(path_type=Path), help="Artifacts, texts and figures; 20 GB.")
@click.option("--rounds", "count", default=0, help="Rounds of timing.")
@click.option("--only", "names", multiple=True, type=click.Choice(list(VARIANTS)), metavar="NAME", help="Variants.")
@click.option("--again", is_flag=True, help="Forget the figures of what --only and --artifact name.")
@click.option("--venvs", type=click.Path(path_type=Path), help="Environments of the peers.  [default: DIR/venvs]")
@click.option("--python", "pythons", multiple=True, metavar="TOOL=PATH", help="An interpreter that has the tool.")
@click.option("--artifact", "artifacts", multiple=True, metavar="NAME=FOLDER", help="An artifact of intaglio's.")
@click.option("--text", "files", multiple=True, metavar="NAME=FILE", help="A text to measure on, or chats (.jsonl).")
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
    artifacts: tuple[str, ...],
    files: tuple[str, ...],
    gguf: str | None,
    threads: int,
    report: Path | None,
) -> None:
    checkpoint, scratch = checkpoint.absolute(), scratch.absolute()
    finished = {name: Path(path).absolute() for name, path in environments.pairs(artifacts).items()}
    if missing := [name for name, path in finished.items() if not (path / MANIFEST).is_file()]:
        raise click.UsageError(f"--artifact {missing[0]}={finished[missing[0]]}: there is no artifact; make it first")
    given = {name: Variant(name, GIVEN, "", "") for name in finished}
    if taken := given.keys() & VARIANTS.keys():
        raise click.UsageError(f"--artifact {min(taken)}=…: a variant has this name; give another one")
    store = ArtifactStore(scratch, checkpoint, gguf, finished)
    wanted = texts(checkpoint, {name: Path(path) for name, path in environments.pairs(files).items()})
    reference = quality_reference.folder(scratch, wanted)
    records = Records(scratch / "quantization" / "records.jsonl")
    prompt_file = scratch / "runtime" / f"prompts-{checkpoint.name}.json"
    prompts.write(prompt_file, checkpoint)
    if again and (names or given):
        records.forget(SECTIONS, [*names, *given])
    quality_reference.forget_other_texts(records, reference)
    chosen = [*(VARIANTS[name] for name in names or (() if given else VARIANTS)), *given.values()]
    tools = [variant.tool for variant in chosen]
    found = environments.interpreters(tools, venvs or scratch / "venvs", environments.pairs(pythons))
    variants, failures = store.make_all([variant for variant in chosen if variant.tool in found], found)
    jobs = Jobs(store, found, prompt_file, threads)
    quality_reference.prepare(jobs, wanted)
    for section, number in zip(SECTIONS, (1, count), strict=True):
        waiting = measurements(section, variants, checkpoint, Path(), reference)
        failures += rounds(waiting, number, records, jobs)
    measured = quantization_page.measured([*VARIANTS.values(), *given.values()], records, store)
    click.echo(quantization_page.table(measured))
    if report is not None and measured:
        quantization_page.write(report, measured)
    if failures:
        raise click.ClickException("not everything ran:\n" + "\n".join(failures))


if __name__ == "__main__":
    main()
