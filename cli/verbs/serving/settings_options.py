"""The options of the command line for ``serving.settings.Settings``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ....serving.settings import Settings

Function = Callable[..., Any]

DEFAULTS = Settings()
COUNT = click.IntRange(min=1)
SECONDS = click.FloatRange(min=0, min_open=True)


def _option(name: str, kind: Any, text: str, **more: Any) -> Callable[[Function], Function]:
    """Return an option with the default of its setting."""
    default = getattr(DEFAULTS, name)
    return click.option(
        f"--{name.replace('_', '-')}", type=kind, default=default, show_default=default is not None, help=text, **more
    )


OPTIONS = (
    _option("slots", COUNT, "Requests that a model decodes together."),
    _option("max_queue", click.IntRange(min=0), "Requests that may wait for a slot; others get 429."),
    _option("max_length", COUNT, "Tokens of a prompt and its continuation at most.  [default: the model's context]"),
    _option("prefill_tokens", COUNT, "Tokens of new prompts that are read between two decode steps."),
    _option("kept_prompts", click.IntRange(min=0), "Prompts that stay in memory for those that begin alike."),
    _option(
        "prompt_cache",
        click.Path(file_okay=False, path_type=Path),
        "Keep prompts in this folder when the server ends.",
        metavar="DIR",
    ),
    _option("max_loaded", COUNT, "Artifacts in memory at once.  [default: all]"),
    click.option(
        "--preload/--lazy",
        default=True,
        show_default=True,
        help="Load the artifacts at the start, or when they are first requested.",
    ),
    _option("per_key", COUNT, "Requests of one API key that may wait or run.  [default: any number]"),
    _option("request_timeout", SECONDS, "Time for a request, waiting included.  [default: any]", metavar="SECONDS"),
    click.option(
        "--allow-origin",
        "allowed_origins",
        multiple=True,
        metavar="ORIGIN",
        help="The origin of web pages that may call the server, such as https://example.org (CORS); may be given "
        "several times.",
    ),
    _option("max_body", COUNT, "Bytes of a request's body at most."),
    _option("max_connections", COUNT, "Connections that may be open at once."),
    _option("body_timeout", SECONDS, "Time in which a request must have arrived.", metavar="SECONDS"),
    _option("write_timeout", SECONDS, "Time in which a client must read what it is sent.", metavar="SECONDS"),
    _option("drain_timeout", SECONDS, "Time for running requests when the server ends.", metavar="SECONDS"),
    _option(
        "otlp_endpoint",
        str,
        "Send traces to this OpenTelemetry collector, as http://localhost:4318.  [default: what OTEL_ variables say]",
        metavar="URL",
    ),
    click.option("--log-contents", is_flag=True, help="Write prompts and answers to the log."),
)


def settings_options(function: Function) -> Function:
    """Add the options for all settings but the keys and the hosts."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function
