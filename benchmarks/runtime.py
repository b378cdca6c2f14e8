"""Measure intaglio and its peers at the same work in turns, and write the tables and plots of runtime.md.

    python -m intaglio.benchmarks.runtime CHECKPOINT --scratch DIR  makes what is missing, measures, prints the tables
        --rounds 5 --report benchmarks                              medians of 5 rounds; writes runtime.md there
        --only speed [--variant int4 --variant int8] [--again]      some sections, some variants; anew
        --longest 2048                                              no longer prompts: the peers read 8,192 for minutes
        --rounds 0 --report benchmarks                              writes the report of the recorded figures
        --venvs DIR | --python OpenVINO=PATH                        where the peers' interpreters are made, or are
        --artifact int4=FOLDER                                      a finished artifact elsewhere
        --gguf FILE                                                 the checkpoint unquantized, for llama.cpp

Every tool runs the same checkpoint with the same number of threads through the runtime that its users have, each
measurement in a process of its own, one round after the other. Sections: speed (load, first token, prefill, decode,
memory, with the machine's bandwidth), limited (the same with AVX2 at most), batches, share (of a step that intaglio
spends), profile, growth (with the context), speculation, classification and quality. Peers that cannot be installed or
fail are left out and named. quantization.py uses the artifacts in DIR (15 GB) too. Figures are recorded in
DIR/runtime/records.jsonl, so that an interrupted run continues, and the report can be written again. Measure on a quiet
machine.
"""

import subprocess
import sys
from pathlib import Path

import click

from .artifacts import environments
from .artifacts.store import ArtifactStore
from .artifacts.variants import ALL, DEFAULT, TRANSFORMERS, Variant
from .harness import prompts, quality_reference
from .harness.measurements import CLASSIFIER, LIMITED, SECTIONS, classifier, measurements, rounds_of
from .harness.records import Records
from .harness.rounds import Jobs, rounds
from .harness.sections.speed import LONG
from .harness.windows import DATA, texts
from .pages import runtime_page

HEAD_FITTER = "intaglio.benchmarks.harness.classifier_head"


@click.command(context_settings={"show_default": True})
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option("--scratch", required=True, type=click.Path(path_type=Path), help="Artifacts, environments, figures.")
@click.option("--rounds", "count", default=5, help="Rounds of timing; 0 writes the report of the recorded figures.")
@click.option("--only", "sections", multiple=True, type=click.Choice(SECTIONS), help="Sections; all by default.")
@click.option("--variant", "names", multiple=True, type=click.Choice(list(ALL)), metavar="NAME", help="Variants.")
@click.option("--again", is_flag=True, help="Forget the figures of these sections and variants.")
@click.option("--venvs", type=click.Path(path_type=Path), help="Environments of the peers.  [default: DIR/venvs]")
@click.option("--python", "pythons", multiple=True, metavar="TOOL=PATH", help="An interpreter that has the tool.")
@click.option("--artifact", "artifacts", multiple=True, metavar="NAME=PATH", help="A variant's finished artifact.")
@click.option("--gguf", help="The checkpoint unquantized in a GGUF file; llama.cpp's variants are made from it.")
@click.option("--sentences", default=DATA, type=click.Path(path_type=Path), help="Has sst2-train.tsv, sst2-dev.tsv.")
@click.option("--longest", default=LONG[-1], help="The most tokens of a prompt whose first token is timed.")
@click.option("--threads", default=2)
@click.option("--report", "report", type=click.Path(path_type=Path), help="Write runtime.md and its plots there.")
def main(
    checkpoint: Path,
    scratch: Path,
    count: int,
    sections: tuple[str, ...],
    names: tuple[str, ...],
    again: bool,
    venvs: Path | None,
    pythons: tuple[str, ...],
    artifacts: tuple[str, ...],
    gguf: str | None,
    sentences: Path,
    longest: int,
    threads: int,
    report: Path | None,
) -> None:
    checkpoint, scratch = checkpoint.absolute(), scratch.absolute()
    finished = {name: Path(path).absolute() for name, path in environments.pairs(artifacts).items()}
    store = ArtifactStore(scratch, checkpoint, gguf, finished | {TRANSFORMERS.name: checkpoint})
    records = Records(scratch / "runtime" / "records.jsonl")
    prompt_file = scratch / "runtime" / f"prompts-{checkpoint.name}.json"
    prompts.write(prompt_file, checkpoint)
    if again:
        records.forget(sections or SECTIONS, names)
        if "speed" in (sections or SECTIONS):
            records.forget(["bandwidth"])  # it is measured in the rounds of every variant
    chosen = [ALL[name] for name in names or DEFAULT] if count else []
    tools = [variant.tool for variant in chosen]
    found = environments.interpreters(tools, venvs or scratch / "venvs", environments.pairs(pythons))
    variants, failures = store.make_all([variant for variant in chosen if variant.tool in found], found)
    wanted = texts(checkpoint)
    reference = quality_reference.folder(scratch, wanted)
    if count and "quality" in (sections or SECTIONS):
        quality_reference.forget_other_texts(records, reference)
    for section in sections or SECTIONS:
        waiting = measurements(section, variants, checkpoint, sentences / "sst2-dev.tsv", reference, longest)
        number = rounds_of(section, count)
        if all(records.has(one.key(index)) for one in waiting for index in range(number)):
            continue
        if missing := _missing(section, sentences):
            failures.append(f"{section} is left out: there is no {missing}")
            continue
        jobs = Jobs(store, found, prompt_file, threads)
        if section == "classification":
            own = [variant for variant in variants if variant.tool == "intaglio"]
            heads, failed = _classifiers(own, store, found, sentences / "sst2-train.tsv")
            jobs = Jobs(heads, found, prompt_file, threads)
            failures += failed
        if section == "quality":
            quality_reference.prepare(jobs, wanted)
        failures += rounds(waiting, number, records, jobs)
    measured = {*records.names("speed"), *records.names(LIMITED)}
    shown = [ALL[name] for name in dict.fromkeys([*DEFAULT, *ALL]) if name in measured]
    shown = [variant for variant in shown if store.path(variant).exists()]
    text = runtime_page.body(records, shown, store, threads)
    click.echo(text)
    if report is not None:
        runtime_page.write(report, text, records, shown)
    if failures:
        raise click.ClickException("not everything ran:\n" + "\n".join(failures))


def _classifiers(
    variants: list[Variant], store: ArtifactStore, pythons: dict[str, str], sentences: Path
) -> tuple[ArtifactStore, list[str]]:
    """Return the store of the classifiers, all made from one checkpoint with a fitted head, and the failures."""
    source = store.scratch / "runtime" / f"{store.checkpoint.name}-{CLASSIFIER}"
    if not (source / "config.json").is_file():
        click.echo(f"{source.name}: fitting a head")
        python = pythons.get("transformers", sys.executable)
        command = [python, "-m", HEAD_FITTER, str(store.checkpoint), str(source), str(sentences)]
        environment = environments.process_environment()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise click.ClickException(f"the classifier's head could not be fitted:\n{done.stderr[-1500:]}")
    heads = ArtifactStore(store.scratch, source, finished={classifier(TRANSFORMERS).name: source})
    return heads, heads.make_all([classifier(variant) for variant in variants], pythons)[1]


def _missing(section: str, sentences: Path) -> Path | None:
    """Return the file that a section needs, if it does not exist."""
    needed = {"classification": sentences / "sst2-dev.tsv"}.get(section)
    return needed if needed is not None and not needed.is_file() else None


if __name__ == "__main__":
    main()
