"""Measure what a quantization costs in tasks: a multiple choice, functions to complete, and sentences to classify.

    python -m intaglio.benchmarks.tasks --scratch DIR --text FILE --artifact float=OUT1 --artifact int4=OUT2
        --sentences FILE --classifier float=OUT3 --classifier int4=OUT4     classifiers, on ``sentence<TAB>label`` lines
        --report benchmarks                                                 writes tasks.md there

The choice (which of four sentences follows two others in a text) and the functions (pass@1, greedy) are run by
lm-evaluation-harness through intaglio's adapter; it needs the extra ``eval``. The functions' completions are programs
that the model wrote, and they are run: in processes of their own with limits of time and memory, which is no sandbox.
Figures are recorded in DIR, so that an interrupted run continues.
"""

from pathlib import Path

import click
from intaglio.artifact import MANIFEST

from .artifacts import environments
from .harness.records import Key, Records
from .harness.sections.classification import read_sentences
from .harness.tasks.evaluation import evaluate
from .pages import tasks_page
from .pages.tasks_page import CLASSIFIED, SECTION

BATCH = 16


@click.command(context_settings={"show_default": True})
@click.option("--scratch", required=True, type=click.Path(path_type=Path), help="Where data and figures go.")
@click.option("--artifact", "artifacts", multiple=True, metavar="NAME=FOLDER", help="An artifact that generates text.")
@click.option("--text", type=click.Path(exists=True, path_type=Path), help="The text whose sentences are chosen.")
@click.option("--choices", default=500, help="The number of multiple choices.")
@click.option("--classifier", "classifiers", multiple=True, metavar="NAME=FOLDER", help="An artifact that classifies.")
@click.option("--sentences", type=click.Path(exists=True, path_type=Path), help="Sentences with their labels.")
@click.option("--threads", default=2, help="Threads.")
@click.option("--again", is_flag=True, help="Forget the figures of the named artifacts.")
@click.option("--report", type=click.Path(path_type=Path), help="Write tasks.md there.")
def main(
    scratch: Path,
    artifacts: tuple[str, ...],
    text: Path | None,
    choices: int,
    classifiers: tuple[str, ...],
    sentences: Path | None,
    threads: int,
    again: bool,
    report: Path | None,
) -> None:
    generating, classifying = _folders(artifacts, "artifact"), _folders(classifiers, "classifier")
    if generating and text is None:
        raise click.UsageError("--artifact needs --text: the file whose sentences are to be chosen")
    if classifying and sentences is None:
        raise click.UsageError("--classifier needs --sentences: a file with a sentence and its label in each line")
    records = Records(scratch / "tasks" / "records.jsonl")
    if again:
        records.forget([SECTION], generating)
        records.forget([CLASSIFIED], classifying)
    for name, folder in generating.items():
        if text is not None and not records.has(key := Key(SECTION, name, text.name, 0)):
            click.echo(f"{name}: the choices and the functions", err=True)
            records.add(key, {"choices": choices, **evaluate(folder, text, choices, threads, scratch / "tasks")})
    for name, folder in classifying.items():
        if sentences is not None and not records.has(key := Key(CLASSIFIED, name, sentences.name, 0)):
            click.echo(f"{name}: the sentences", err=True)
            records.add(key, classified(folder, sentences, threads))
    body = tasks_page.body(records, threads)
    click.echo(body)
    if report is not None:
        tasks_page.write(report, body)


def classified(folder: Path, sentences: Path, threads: int) -> dict[str, float]:
    """Return the accuracy of a classifier over a file of sentences, its standard error, and their number."""
    from ..runtime import load
    from ..runtime.tasks.classify import SequenceClassifier

    texts, labels = read_sentences(sentences)
    model = load(folder, threads=threads)
    if not isinstance(model, SequenceClassifier):
        raise click.UsageError(f"--classifier {folder}: it is no text classifier")
    found = [one.label == label for one, label in zip(model(texts, batch_size=BATCH), labels, strict=True)]
    share = sum(found) / len(found)
    return {"sentences": len(found), "accuracy": share, "accuracy error": (share * (1 - share) / len(found)) ** 0.5}


def _folders(given: tuple[str, ...], option: str) -> dict[str, Path]:
    """Return the folders by name.

    Raises:
        click.UsageError: one is no artifact.
    """
    found = {name: Path(path).absolute() for name, path in environments.pairs(given).items()}
    for name, folder in found.items():
        if not (folder / MANIFEST).is_file():
            raise click.UsageError(f"--{option} {name}={folder}: there is no artifact; make it first")
    return found


if __name__ == "__main__":
    main()
