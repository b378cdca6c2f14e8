"""``intaglio classify``: label texts."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ..loading import Loading, find_artifact
from ..options import example, json_option, loading_options, texts_argument, truncate_option
from ..show import print_json, print_rows
from ..texts import read_texts

if TYPE_CHECKING:
    from ...runtime import Classification
    from ...runtime.tasks.classify import ScoreFunction


NONE = {"label": None, "score": None, "scores": None}
"""The result of an empty line in --json."""


@click.command(
    short_help="Label texts.",
    epilog=example(
        "intaglio classify out 'a delightful film' 'a waste of time'",
        "intaglio classify out - --json < reviews.txt",
        "intaglio classify reranker --query 'Where is the tower?' - < passages.txt",
    ),
)
@click.argument("artifact")
@texts_argument
@click.option("--query", metavar="TEXT", help="The first text of every pair, for rerankers; TEXT is the second.")
@click.option("--top-k", type=click.IntRange(min=1), metavar="N", help="Print the N best labels of each text.")
@click.option(
    "--function",
    type=click.Choice(["none", "sigmoid", "softmax"]),
    help="What makes scores of logits.  [default: by problem type and number of labels]",
)
@truncate_option
@loading_options
@json_option
def command(
    artifact: str,
    texts: tuple[str, ...],
    query: str | None,
    top_k: int | None,
    function: "ScoreFunction | None",
    truncate: bool,
    loading: Loading,
    as_json: bool,
) -> None:
    """Label each TEXT with the text-classification model in ARTIFACT.

    Prints the label, its score and the text; with --top-k a line for each label. A single `-` reads texts from standard
    input, one per line. Scores are raw for a regression, a sigmoid for several labels at once or a single label, and a
    softmax otherwise; --function none prints the raw score of a reranker or reward model.
    """
    from ...runtime import load

    inputs = read_texts(texts)
    folder = find_artifact(artifact, "text-classification", loading)
    model = load(folder, task="text-classification", **loading.options())

    def run(texts: list[str]) -> list["Classification"]:
        first, second = (texts, None) if query is None else (query, texts)
        return model(first, text_pairs=second, function_to_apply=function, top_k=top_k, truncation=truncate)

    skip = query is None and not model.tokenizer.encode("")
    labelled = list(zip(inputs.values, inputs.results(run, skip=skip), strict=True))
    if as_json:
        print_json([{"text": text, **(NONE if result is None else asdict(result))} for text, result in labelled])
    else:
        rows = [(label, score, text) for text, result in labelled for label, score in _labels(result, top_k)]
        print_rows(("label", "score", "text"), rows)


def _labels(result: "Classification | None", top_k: int | None) -> list[tuple[str, float | str]]:
    """Return the labels that are printed for a text, with their scores; both are empty for an empty line."""
    if result is None:
        return [("", "")]
    return list(result.scores.items()) if top_k else [(result.label, result.score)]
