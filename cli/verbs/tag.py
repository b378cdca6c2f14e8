"""``intaglio tag``: label the tokens, or the entities, of texts."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ...errors import UsageError
from ..loading import Loading, find_artifact
from ..options import example, json_option, loading_options, texts_argument, truncate_option
from ..show import print_json, print_rows
from ..texts import read_texts

if TYPE_CHECKING:
    from ...runtime import Tag
    from ...runtime.tasks.entities import Aggregation


@click.command(
    short_help="Label the tokens or entities of texts.",
    epilog=example("intaglio tag out 'Ada Lovelace lived in London' --aggregate"),
)
@click.argument("artifact")
@texts_argument
@click.option("--aggregate", is_flag=True, help="Merge adjacent tokens of the same label into entities.")
@click.option(
    "--aggregation",
    type=click.Choice(["none", "simple", "first", "average", "max"]),
    help="Merge tokens as this strategy of transformers' pipeline does: the last three label whole words.",
)
@truncate_option
@loading_options
@json_option
def command(
    artifact: str,
    texts: tuple[str, ...],
    aggregate: bool,
    aggregation: "Aggregation | None",
    truncate: bool,
    loading: Loading,
    as_json: bool,
) -> None:
    """Label the tokens of each TEXT with the token-classification model in ARTIFACT.

    Prints the index of the text (from 0), the label, its score, the start and end of the span in characters, and the
    span. A single `-` reads texts from standard input, one per line.
    """
    from ...runtime import load

    if aggregate and aggregation is not None:
        raise UsageError("--aggregate and --aggregation exclude each other; give one of them")
    inputs = read_texts(texts)
    folder = find_artifact(artifact, "token-classification", loading)
    model = load(folder, task="token-classification", **loading.options())

    def run(texts: list[str]) -> list[list["Tag"]]:
        return model(texts, aggregate=aggregation or aggregate, truncation=truncate)

    results = [tags or [] for tags in inputs.results(run, skip=not model.tokenizer.encode(""))]
    if as_json:
        tagged = zip(inputs.values, results, strict=True)
        print_json([{"text": text, "tags": [asdict(tag) for tag in tags]} for text, tags in tagged])
    else:
        rows = [
            (i, tag.label, tag.score, tag.start, tag.end, tag.text) for i, tags in enumerate(results) for tag in tags
        ]
        print_rows(("#", "label", "score", "start", "end", "text"), rows)
