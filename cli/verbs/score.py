"""``intaglio score``: the log-probability of each token of a text."""

import math
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ...errors import UsageError
from ..loading import Loading, load_generator
from ..options import example, json_option, kv_cache_option, loading_options
from ..show import console, one_line, print_json, print_rows, printable
from ..texts import read_text

if TYPE_CHECKING:
    from ...runtime import Score

COLOURS = ((1.0, "green"), (4.0, "default"), (8.0, "yellow"), (math.inf, "bold red"))
"""The colour of a token by the upper limit of its surprise, in bits."""


@click.command(
    short_help="The log-probability of each token of a text.",
    epilog=example(
        "intaglio score out 'The team won the game.'",
        "intaglio score out ' game.' --context 'The team won the' --json",
    ),
)
@click.argument("artifact")
@click.argument("text")
@click.option("--context", help="Text before TEXT that is not scored; `-` reads standard input.")
@click.option("--window", type=int, help="Tokens that are read to score one, at most.  [default: the model's context]")
@click.option("--stride", type=int, help="Score a TEXT longer than the window, with N new tokens in each window.")
@kv_cache_option
@loading_options
@json_option
def command(
    artifact: str,
    text: str,
    context: str | None,
    window: int | None,
    stride: int | None,
    loading: Loading,
    as_json: bool,
) -> None:
    """Print the log-probability of each token of TEXT under the text-generation model in ARTIFACT.

    TEXT `-` reads standard input. Logarithms are natural; surprise is in bits. A terminal shows tokens coloured by
    surprise, their sum and the perplexity. Without a context the first token is not scored.
    """
    if text == context == "-":
        raise UsageError("TEXT and --context cannot both read standard input; give the text of one of them")
    text = read_text(text)
    if context is not None:
        context = read_text(context)
    score = load_generator(artifact, loading).score(text, context=context, window=window, stride=stride)
    if as_json:
        scores = {name: value for name, value in asdict(score).items() if name != "top"}
        print_json(scores | {"total": score.total, "perplexity": score.perplexity})
    elif on_terminal():
        _print_coloured(score)
    else:
        print_rows((), [*zip(score.token_ids, score.logprobs, score.tokens, strict=True)])


def on_terminal() -> bool:
    return sys.stdout.isatty()


def _print_coloured(score: "Score") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("id", "logprob", "bits"):
        table.add_column(name, justify="right")
    table.add_column("token", overflow="fold")
    for token, logprob, text in zip(score.token_ids, score.logprobs, score.tokens, strict=True):
        bits = -logprob / math.log(2)
        colour = next(colour for limit, colour in COLOURS if bits < limit or limit == math.inf)
        table.add_row(str(token), f"{logprob:.4f}", f"{bits:.1f}", Text(printable(one_line(text)), style=colour))
    shown = console()
    shown.print(table)
    shown.print(f"{len(score.token_ids):,} tokens, total {score.total:.4f}, perplexity {score.perplexity:,.4f}")
