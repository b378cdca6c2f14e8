"""``intaglio tag``: label the tokens, or the entities, of texts."""

from dataclasses import asdict

import click

from ..loading import load_as
from ..options import Device, example, json_option, runtime_options, truncate_option
from ..show import print_json, print_rows
from ..texts import read_texts


@click.command(
    short_help="Label the tokens or entities of texts.",
    epilog=example("intaglio tag out 'Ada Lovelace lived in London' --aggregate"),
)
@click.argument("artifact")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option("--aggregate", is_flag=True, help="Join neighbouring tokens of one label into entities.")
@truncate_option
@runtime_options
@json_option
def command(
    artifact: str,
    texts: tuple[str, ...],
    aggregate: bool,
    truncate: bool,
    device: Device,
    threads: int | None,
    revision: str | None,
    as_json: bool,
) -> None:
    """Label the tokens of each TEXT with the token-classification model in ARTIFACT.

    Prints the number of the text (from 0), the label, its score, the first character and the one after the last,
    and the characters. A single `-` reads texts from standard input, one a line.
    """
    from ...runtime import TokenClassifier

    given = read_texts(texts)
    model = load_as(
        TokenClassifier, "token-classification", artifact, device=device, threads=threads, revision=revision
    )
    results = model(given, aggregate=aggregate, truncation=truncate)
    if as_json:
        print_json(
            [{"text": text, "tags": [asdict(t) for t in tags]} for text, tags in zip(given, results, strict=True)]
        )
    else:
        rows = [(i, t.label, t.score, t.start, t.end, t.text) for i, tags in enumerate(results) for t in tags]
        print_rows(("#", "label", "score", "start", "end", "text"), rows)
