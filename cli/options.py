"""Options that several verbs share."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import click

Device = Literal["cpu", "cuda"]
Decorated = TypeVar("Decorated", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")

truncate_option = click.option("--truncate", is_flag=True, help="Cut texts longer than the context; else an error.")


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
