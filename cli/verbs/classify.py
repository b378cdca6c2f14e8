"""``intaglio classify``: label whole texts."""

from dataclasses import asdict

import click

from ..loading import load_as
from ..options import Device, example, json_option, runtime_options, truncate_option
from ..show import print_json, print_rows
from ..texts import read_texts


@click.command(
    short_help="Label whole texts.",
    epilog=example(
        "intaglio classify out 'a delightful film' 'a waste of time'",
        "intaglio classify out - --json < reviews.txt",
    ),
)
@click.argument("artifact")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@truncate_option
@runtime_options
@json_option
def command(
    artifact: str,
    texts: tuple[str, ...],
    truncate: bool,
    device: Device,
    threads: int | None,
    revision: str | None,
    as_json: bool,
) -> None:
    """Label each TEXT with the text-classification model in ARTIFACT: label, score, text.

    A single `-` reads texts from standard input, one a line.
    """
    from ...runtime import SequenceClassifier

    given = read_texts(texts)
    model = load_as(
        SequenceClassifier, "text-classification", artifact, device=device, threads=threads, revision=revision
    )
    results = model(given, truncation=truncate)
    if as_json:
        print_json([{"text": text, **asdict(result)} for text, result in zip(given, results, strict=True)])
    else:
        rows = [(result.label, result.score, text) for text, result in zip(given, results, strict=True)]
        print_rows(("label", "score", "text"), rows)
