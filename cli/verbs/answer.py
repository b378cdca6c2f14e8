"""``intaglio answer``: find the answer to a question inside a text."""

from dataclasses import asdict

import click

from ..loading import load_as
from ..options import Device, example, json_option, runtime_options
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
@click.option("--question", required=True, metavar="TEXT", help="What is asked.")
@click.option("--context", required=True, metavar="TEXT|@FILE|-", help="The text that holds the answer.")
@click.option("--top-k", type=click.IntRange(min=1), default=1, show_default=True, help="How many answers to give.")
@runtime_options
@json_option
def command(
    artifact: str,
    question: str,
    context: str,
    top_k: int,
    device: Device,
    threads: int | None,
    revision: str | None,
    as_json: bool,
) -> None:
    """Find the spans of a context that answer a question, with the question-answering model in ARTIFACT.

    Prints the score, the first character of the span in the context and the one after its last, and the span.
    A long context is read in overlapping windows.
    """
    from ...runtime import QuestionAnswerer

    text = read_text_or_file(context)
    model = load_as(QuestionAnswerer, "question-answering", artifact, device=device, threads=threads, revision=revision)
    answers = model(question, text, top_k=top_k)
    if as_json:
        print_json([asdict(answer) for answer in answers])
    else:
        rows = [(a.score, a.start, a.end, a.text) for a in answers]
        print_rows(("score", "start", "end", "text"), rows)
