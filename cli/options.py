"""Options that several verbs share."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import click

from ..artifact import TARGETS, TASKS

Device = Literal["cpu", "cuda"]
KVCache = Literal["auto", "int8"]
Decorated = TypeVar("Decorated", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")

truncate_option = click.option("--truncate", is_flag=True, help="Cut texts longer than the context; else an error.")

kv_cache_option = click.option(
    "--kv-cache",
    type=click.Choice(["auto", "int8"]),
    default="auto",
    show_default=True,
    help="`int8`: keys and values in a quarter of the memory, a little less exact.",
)


def source_options(function: Decorated) -> Decorated:
    """``--task``, ``--target``, ``--revision``, ``--force``, ``--no-parity``: what it is made from, and how."""
    for option in reversed(
        (
            click.option(
                "--task",
                type=click.Choice(["auto", *TASKS]),
                default="auto",
                show_default=True,
                help="What the model does; `auto` reads it from the architecture in config.json.",
            ),
            click.option(
                "--target",
                type=click.Choice(TARGETS),
                default="ort",
                show_default=True,
                help="`ort`: ONNX Runtime's fused operators; `standard`: ONNX opset 24 alone.",
            ),
            click.option("--revision", help="Commit, tag or branch, where SOURCE is a hub id."),
            click.option("--force", is_flag=True, help="Replace OUT, once the new artifact is complete."),
            click.option("--no-parity", is_flag=True, help="Do not compare OUT with SOURCE; it is then `not checked`."),
        )
    ):
        function = option(function)
    return function


def sampling_options(function: Decorated) -> Decorated:
    """``--max-new-tokens`` to ``--stop``: how a text is generated."""
    for option in reversed(
        (
            click.option("--max-new-tokens", type=click.IntRange(min=1), help="Stop after this many new tokens."),
            click.option("--temperature", type=float, help="0 is greedy; above 0 samples."),
            click.option("--top-k", type=int, help="Sample among the K likeliest tokens."),
            click.option("--top-p", type=float, help="Sample among the likeliest tokens that together reach P."),
            click.option("--min-p", type=float, help="Leave out tokens less likely than P times the likeliest."),
            click.option("--repetition-penalty", type=float, help="Above 1 makes tokens seen before less likely."),
            click.option("--seed", type=int, help="Makes sampling repeatable."),
            click.option(
                "--stop", multiple=True, metavar="TEXT", help="End before this text; may be given several times."
            ),
        )
    ):
        function = option(function)
    return function


def speculation_options(function: Decorated) -> Decorated:
    """``--speculate`` and ``--draft``: several tokens from one pass."""
    for option in reversed(
        (
            click.option(
                "--speculate/--no-speculate",
                default=None,
                help="Guess tokens from the text and check several in one pass; the text is the same.  "
                "[default: where it can be done]",
            ),
            click.option(
                "--draft", metavar="ARTIFACT", help="A smaller model of the same vocabulary, to guess instead."
            ),
        )
    ):
        function = option(function)
    return function


def runtime_options(function: Decorated) -> Decorated:
    """``--device``, ``--threads`` and ``--revision``: how an artifact is loaded."""
    for option in reversed(
        (
            click.option(
                "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where to run."
            ),
            click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: the CPUs at hand]"),
            click.option("--revision", help="Commit, tag or branch, where ARTIFACT is a hub id."),
        )
    ):
        function = option(function)
    return function


def example(*lines: str) -> str:
    """The epilog of a verb's --help: its examples, one command a line, kept as they are."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)
