"""``intaglio score``: how likely a text is, token by token."""

import math
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ...errors import UsageError
from ..loading import load_as
from ..options import Device, KVCache, example, json_option, kv_cache_option, runtime_options
from ..show import one_line, print_json, print_rows
from ..texts import read_text

if TYPE_CHECKING:
    from ...runtime import Score

# Bits of surprise below which a token gets a colour: as good as certain, expected, possible, unlikely.
COLOURS = ((1.0, "green"), (4.0, "default"), (8.0, "yellow"), (math.inf, "bold red"))


@click.command(
    short_help="The log-probability of each token of a text.",
    epilog=example(
        "intaglio score out 'The team won the game.'",
        "intaglio score out ' game.' --context 'The team won the' --json",
    ),
)
@click.argument("artifact")
@click.argument("text")
@click.option("--context", help="What stands before TEXT and is not scored itself; `-` reads standard input.")
@click.option("--window", type=int, help="Read at most N tokens to score one.  [default: the model's context]")
@click.option("--stride", type=int, help="Score a TEXT longer than the window, N tokens a window.")
@kv_cache_option
@runtime_options
@json_option
def command(
    artifact: str,
    text: str,
    context: str | None,
    window: int | None,
    stride: int | None,
    kv_cache: KVCache,
    device: Device,
    threads: int | None,
    revision: str | None,
    as_json: bool,
) -> None:
    """How likely the text-generation model in ARTIFACT finds TEXT: a line for each token with its log-probability.

    TEXT `-` reads standard input. Logarithms are natural, surprise is in bits. On a terminal tokens are coloured by
    surprise, and the sum and the perplexity follow. Without a context the first token is not scored.
    """
    if text == context == "-":
        raise UsageError("TEXT and --context cannot both be read from standard input; give one of them itself")
    from ...runtime import TextGenerator

    text = read_text(text)
    before = None if context is None else read_text(context)
    model = load_as(
        TextGenerator,
        "text-generation",
        artifact,
        device=device,
        threads=threads,
        revision=revision,
        kv_cache=kv_cache,
    )
    score = model.score(text, context=before, window=window, stride=stride)
    if as_json:
        print_json(asdict(score) | {"total": score.total, "perplexity": score.perplexity})
    elif on_terminal():
        _print_coloured(score)
    else:
        print_rows((), [*zip(score.token_ids, score.logprobs, score.tokens, strict=True)])


def on_terminal() -> bool:
    return sys.stdout.isatty()


def _print_coloured(score: "Score") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("id", "logprob", "bits"):
        table.add_column(name, justify="right")
    table.add_column("token", overflow="fold")
    for token, logprob, text in zip(score.token_ids, score.logprobs, score.tokens, strict=True):
        bits = -logprob / math.log(2)
        colour = next(colour for limit, colour in COLOURS if bits < limit or limit == math.inf)
        table.add_row(str(token), f"{logprob:.4f}", f"{bits:.1f}", Text(one_line(text), style=colour))
    console = Console(markup=False, highlight=False, emoji=False)
    console.print(table)
    console.print(f"{len(score.token_ids):,} tokens, total {score.total:.4f}, perplexity {score.perplexity:,.4f}")
