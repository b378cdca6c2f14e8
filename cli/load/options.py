"""The options of ``intaglio bench --serve``."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ...errors import UsageError

Function = Callable[..., Any]

SHARED = {"prompt_tokens", "new_tokens", "as_json"}
"""Options of an artifact's measurement and of a server's."""

REQUESTS = 32


@dataclass(frozen=True)
class ServerLoad:
    """The options of a load on a server; None where one was not given."""

    serve: str | None
    model: str | None
    rate: float | None
    clients: int | None
    requests: int | None
    duration: float | None
    warmup: int | None
    prefix_tokens: int | None
    dataset: Path | None
    completions: bool | None
    seed: int | None
    timeout: float | None
    api_key: str | None
    plot: Path | None


def load_options(function: Function) -> Function:
    """Add ``--serve`` to ``--plot``, given as one ``load``."""

    @wraps(function)
    def with_load(**given: Any) -> Any:
        load = ServerLoad(**{field.name: given.pop(field.name) for field in fields(ServerLoad)})
        return function(load=load, **given)

    for option in reversed(OPTIONS):
        with_load = option(with_load)
    return with_load


OPTIONS = (
    click.option("--serve", metavar="URL", help="Measure a running server instead, any with OpenAI's interface."),
    click.option("--model", metavar="NAME", help="With --serve: the model.  [default: the server's only one]"),
    click.option(
        "--rate",
        type=click.FloatRange(min=0, min_open=True),
        metavar="N",
        help="With --serve: N requests/s at random times, whatever the server does (open loop).",
    ),
    click.option(
        "--clients",
        type=click.IntRange(min=1),
        metavar="N",
        help="With --serve: N clients, each with one request at a time (closed loop).  [default: 1]",
    ),
    click.option(
        "--requests",
        type=click.IntRange(min=1),
        metavar="N",
        help=f"With --serve: requests to count.  [default: {REQUESTS}]",
    ),
    click.option(
        "--duration",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="With --serve: send requests for so long instead of --requests.",
    ),
    click.option(
        "--warmup",
        type=click.IntRange(min=0),
        metavar="N",
        help="With --serve: requests that are sent first and not counted.  [default: as many as clients]",
    ),
    click.option(
        "--prefix-tokens",
        type=click.IntRange(min=0),
        metavar="N",
        help="With --serve: tokens of a system message that all prompts share.",
    ),
    click.option(
        "--dataset",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help='With --serve: prompts, one a line: text, or JSON with "messages" or "prompt".  [default: random words]',
    ),
    click.option("--completions", is_flag=True, default=None, help="With --serve: /v1/completions instead of chat."),
    click.option(
        "--seed", type=int, metavar="N", help="With --serve: of random words, their order and times.  [default: 0]"
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="With --serve: a request that takes longer has failed.  [default: 600]",
    ),
    click.option("--api-key", envvar="OPENAI_API_KEY", metavar="KEY", help="With --serve.  [env: OPENAI_API_KEY]"),
    click.option(
        "--plot", type=click.Path(path_type=Path), metavar="FILE", help="With --serve: draw the times in FILE (SVG)."
    ),
)


def refuse_load_options(load: ServerLoad) -> None:
    """Check that no option of a load is given without a server.

    Raises:
        UsageError: names the option.
    """
    for field in fields(load):
        if field.name not in ("serve", "api_key") and getattr(load, field.name) is not None:
            raise UsageError(f"--{field.name.replace('_', '-')} is for a server; give its address with --serve URL")


def refuse_artifact_options(context: click.Context) -> None:
    """Check that no option of an artifact is given with a server.

    Raises:
        UsageError: names the option.
    """
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in SHARED and name not in {field.name for field in fields(ServerLoad)}:
            shown = "an ARTIFACT" if name == "artifact" else parameter.opts[0]
            raise UsageError(f"--serve measures a server, and {shown} is of an artifact; leave out one of them")


def check_load_options(load: ServerLoad, prompt_tokens: int | None) -> None:
    """Check that the server has an address, and that no two options exclude each other.

    Raises:
        UsageError: names what is wrong.
    """
    if load.serve is None or not load.serve.startswith(("http://", "https://")):
        raise UsageError(f"--serve {load.serve}: this is not an address; give one as http://127.0.0.1:8000")
    pairs = (
        ("--rate", load.rate, "--clients", load.clients),
        ("--requests", load.requests, "--duration", load.duration),
        ("--dataset", load.dataset, "--prompt-tokens", prompt_tokens),
        ("--dataset", load.dataset, "--prefix-tokens", load.prefix_tokens),
    )
    for name, value, other, second in pairs:
        if value is not None and second is not None:
            raise UsageError(f"{name} and {other} exclude each other; leave out one of them")
