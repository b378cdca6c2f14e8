"""``intaglio answer``: find the answer to a question in a text."""

from dataclasses import asdict

import click

from ..loading import Loading, find_artifact
from ..options import example, json_option, loading_options
from ..show import print_json, print_rows
from ..texts import read_text_or_file


@click.command(
    short_help="Find the answer to a question in a text.",
    epilog=example(
        "intaglio answer out --question 'Where is the tower?' --context 'The tower stands in Pisa.'",
        "intaglio answer out --question 'Who wrote it?' --context @article.txt --top-k 3 --json",
    ),
)
@click.argument("artifact")
@click.option("--question", required=True, metavar="TEXT", help="The question.")
@click.option("--context", required=True, metavar="TEXT|@FILE|-", help="The text that contains the answer.")
@click.option("--top-k", type=click.IntRange(min=1), default=1, show_default=True, help="Number of answers to print.")
@click.option("--align-to-words", is_flag=True, help="Extend answers to whole words.")
@loading_options
@json_option
def command(
    artifact: str, question: str, context: str, top_k: int, align_to_words: bool, loading: Loading, as_json: bool
) -> None:
    """Find the spans of a context that answer a question, with the question-answering model in ARTIFACT.

    Prints the score, the start and end of the span in characters of the context, and the span. A long context is read
    in overlapping windows.
    """
    from ...runtime import load

    text = read_text_or_file(context)
    folder = find_artifact(artifact, "question-answering", loading)
    model = load(folder, task="question-answering", **loading.options())
    answers = model(question, text, top_k=top_k, align_to_words=align_to_words)
    if as_json:
        print_json([asdict(answer) for answer in answers])
    else:
        rows = [(answer.score, answer.start, answer.end, answer.text) for answer in answers]
        print_rows(("score", "start", "end", "text"), rows)
