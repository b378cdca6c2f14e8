"""intaglio and its peers at the same work in turns: the tables and plots of runtime.md.

    python benchmarks/runtime.py CHECKPOINT --scratch DIR           makes what is missing, runs, prints the tables
        --rounds 5 --report benchmarks                              medians of so many; writes runtime.md there
        --only speed [--row int4 --row openvino-int4] [--again]     some sections, some contenders; anew
        --rounds 0 --report benchmarks                              writes the report of what was measured
        --venvs DIR | --python OpenVINO=PATH                        where the peers' interpreters are made, or are
        --artifact int4=FOLDER                                      a finished artifact that lies elsewhere
        --gguf FILE                                                 the checkpoint unquantized, for llama.cpp

Everyone runs the same checkpoint with the same number of threads through the runtime that its users have, each turn in
a process of its own, one round after the other. Sections: speed (load, first token, prefill, decode, memory, with the
machine's bandwidth), batches, share (of a step that is ours), profile, growth (with the context), speculation,
classification and quality. Peers that cannot be installed or fail are left out and named. DIR (15 GB) also serves
quantization.py. Every figure is kept in DIR/runtime/records.jsonl, so that a run which was broken off goes on, and
the report can be written again. Figures mean something on a quiet machine only.
"""

import sys
from pathlib import Path

import click
from quality_cache import prepare as prepare_quality
from race import environments, page, texts
from race.contenders import ALL, DEFAULT, TRANSFORMERS
from race.records import Records
from race.run import BENCHMARKS, Jobs, rounds, run_module
from race.turns import HEADS, SECTIONS, classifier, rounds_of, turns
from rows import OWN, REFERENCE, Row
from shelf import Shelf
from windows import WIKITEXT

SENTENCES = BENCHMARKS.parents[1] / "shared" / "data"
WINDOWS = 16


@click.command(context_settings={"show_default": True})
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option("--scratch", required=True, type=click.Path(path_type=Path), help="Artifacts, environments, figures.")
@click.option("--rounds", "count", default=5, help="Rounds of timing; 0 writes the report of what there is.")
@click.option("--only", "sections", multiple=True, type=click.Choice(SECTIONS), help="Sections; all if none is given.")
@click.option("--row", "names", multiple=True, type=click.Choice(list(ALL)), metavar="NAME", help="Contenders, by row.")
@click.option("--again", is_flag=True, help="Forget what was measured of these sections and rows.")
@click.option("--venvs", type=click.Path(path_type=Path), help="Environments of the peers.  [default: DIR/venvs]")
@click.option("--python", "pythons", multiple=True, metavar="TOOL=PATH", help="An interpreter that has the tool.")
@click.option("--artifact", "artifacts", multiple=True, metavar="NAME=PATH", help="A row's finished artifact.")
@click.option("--gguf", help="The checkpoint unquantized in a GGUF file; without it llama.cpp's rows are not made.")
@click.option(
    "--sentences", default=SENTENCES, type=click.Path(path_type=Path), help="Has sst2-train.tsv, sst2-dev.tsv."
)
@click.option("--threads", default=2)
@click.option("--report", "place", type=click.Path(path_type=Path), help="Write runtime.md and its plots there.")
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
    threads: int,
    place: Path | None,
) -> None:
    checkpoint = checkpoint.absolute()
    given = {name: Path(path).absolute() for name, path in map(_pair, artifacts)} | {TRANSFORMERS.name: checkpoint}
    shelf = Shelf(scratch.absolute(), checkpoint, gguf, given)
    records = Records(scratch / "runtime" / "records.jsonl")
    prompts = scratch.absolute() / "runtime" / f"prompts-{checkpoint.name}.json"
    texts.write(prompts, checkpoint)
    chosen = [ALL[name] for name in names or DEFAULT]
    if again:
        records.forget(sections or SECTIONS, names)
        if "speed" in (sections or SECTIONS):
            records.forget(["bandwidth"], ())  # whichever rows are named: it belongs to their rounds
    tools = [row.tool for row in chosen] if count else []
    found = environments.interpreters(tools, venvs or scratch / "venvs", dict(map(_pair, pythons)))
    rows, failures = _made([row for row in chosen if count and row.tool in found], shelf, found)
    cache = scratch.absolute() / f"quality-{WINDOWS}x512"
    for section in sections or SECTIONS:
        waiting = turns(section, rows, checkpoint, sentences / "sst2-dev.tsv", cache)
        if all(records.has(turn.key(number)) for turn in waiting for number in range(rounds_of(section, count))):
            continue
        if missing := _missing(section, sentences):
            failures.append(f"{section} is left out: there is no {missing}")
            continue
        place_of = shelf
        if section == "classification":
            own = [row for row in rows if row.tool == "intaglio"]
            place_of, failed = _heads(own, shelf, found, sentences / "sst2-train.tsv")
            failures += failed
        if section == "quality":
            reference = next(row for row in OWN if row.name == REFERENCE)
            shelf.make(reference, found["intaglio"])
            prepare_quality(cache, checkpoint, WINDOWS, shelf.path(reference))

        jobs = Jobs(place_of, found, prompts, threads)
        failures += rounds(waiting, rounds_of(section, count), records, jobs)
    order = dict.fromkeys([*DEFAULT, *ALL])
    measured = [ALL[name] for name in order if name in records.names("speed") and shelf.path(ALL[name]).exists()]
    text = page.body(records, measured, shelf, threads)
    click.echo(text)
    if place is not None:
        page.write(place, text, records, measured)
    if failures:
        raise click.ClickException("not everything ran:\n" + "\n".join(failures))


def _made(rows: list[Row], shelf: Shelf, pythons: dict[str, str]) -> tuple[list[Row], list[str]]:
    """The rows whose artifacts are there or could be made, and what failed."""
    made, failures = [], []
    for row in rows:
        try:
            shelf.make(row, pythons[row.tool])
            made.append(row)
        except click.ClickException as error:
            failures.append(f"{row.name} is left out: {error.message}")
    return made, failures


def _heads(rows: list[Row], shelf: Shelf, pythons: dict[str, str], sentences: Path) -> tuple[Shelf, list[str]]:
    """The shelf of the classifiers, all made from one checkpoint with a head; and what failed."""
    source = shelf.scratch / "runtime" / f"{shelf.checkpoint.name}-{HEADS}"
    if not (source / "config.json").is_file():
        click.echo(f"{source.name}: fitting a head")
        run_module(pythons.get("transformers", sys.executable), "sentiment", shelf.checkpoint, source, sentences)
    heads = Shelf(shelf.scratch, source, given={classifier(ALL[TRANSFORMERS.name]).name: source})
    return heads, _made([classifier(row) for row in rows], heads, pythons)[1]


def _missing(section: str, sentences: Path) -> Path | None:
    """The file that a section needs and that is not there."""
    needed = {"classification": sentences / "sst2-dev.tsv", "quality": WIKITEXT}.get(section)
    return needed if needed is not None and not needed.is_file() else None


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise click.UsageError(f"{text!r} is no NAME=PATH")
    return name, value


if __name__ == "__main__":
    main()
