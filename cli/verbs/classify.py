"""``intaglio classify``: label texts."""

from dataclasses import asdict

import click

from ..loading import Loading, find_artifact
from ..options import example, json_option, loading_options, texts_argument, truncate_option
from ..show import print_json, print_rows
from ..texts import read_texts


@click.command(
    short_help="Label texts.",
    epilog=example(
        "intaglio classify out 'a delightful film' 'a waste of time'",
        "intaglio classify out - --json < reviews.txt",
    ),
)
@click.argument("artifact")
@texts_argument
@truncate_option
@loading_options
@json_option
def command(artifact: str, texts: tuple[str, ...], truncate: bool, loading: Loading, as_json: bool) -> None:
    """Label each TEXT with the text-classification model in ARTIFACT.

    Prints the label, its score and the text. A single `-` reads texts from standard input, one per line.
    """
    from ...runtime import load

    inputs = read_texts(texts)
    folder = find_artifact(artifact, "text-classification", loading.revision)
    model = load(folder, task="text-classification", **loading.options())
    labelled = list(zip(inputs, model(inputs, truncation=truncate), strict=True))
    if as_json:
        print_json([{"text": text, **asdict(result)} for text, result in labelled])
    else:
        rows = [(result.label, result.score, text) for text, result in labelled]
        print_rows(("label", "score", "text"), rows)
