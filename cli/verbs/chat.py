"""``intaglio chat``: a conversation in the terminal, or in a pipe with one message per line."""

import sys
from pathlib import Path
from typing import Any

import click

from ..loading import Loading, load_draft, load_generator
from ..options import (
    example,
    generation_config_option,
    kv_cache_option,
    loading_options,
    sampling_options,
    speculation_options,
)


@click.command(
    short_help="Talk with a model.",
    epilog=example(
        "intaglio chat out --system 'You are brief.'",
        "echo 'Where is Seoul?' | intaglio chat out --max-new-tokens 32 --temperature 0",
        "printf '%s\\n' 'I am Ada.' 'Who am I?' | intaglio chat out --json --seed 1",
    ),
)
@click.argument("artifact")
@click.option("--system", metavar="TEXT", help="System message, before the conversation.")
@click.option("--think/--no-think", default=None, help="Turn reasoning on or off, if the chat template supports it.")
@click.option(
    "--tools",
    "tool_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="FILE.py: functions that are executed when the model calls them (FILE.py itself is executed at the start). "
    "FILE.json: schemas of functions whose results you type.",
)
@click.option("--template", metavar="NAME", help="Use this one of several chat templates.")
@sampling_options
@speculation_options
@generation_config_option
@kv_cache_option
@loading_options
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each turn of the model.")
def command(
    artifact: str,
    system: str | None,
    think: bool | None,
    tool_file: Path | None,
    template: str | None,
    draft: str | None,
    loading: Loading,
    as_json: bool,
    **settings: Any,
) -> None:
    """Talk with the text-generation model in ARTIFACT, with its own chat template.

    In a terminal, Ctrl-C stops an answer, and Ctrl-D or a second Ctrl-C ends the conversation; `/help` lists the
    commands. In a pipe, every line is a message and only the answers are printed. Options that are not given are read
    from the model's generation_config.json.
    """
    from ..chatting.screen import JsonLines, Pipe, Screen, Terminal
    from ..chatting.talk import Talk
    from ..chatting.toolfile import NO_TOOLS, read_tools

    toolbox = read_tools(tool_file) if tool_file is not None else NO_TOOLS
    model = load_generator(artifact, loading)
    settings["stop"] = settings["stop"] or None  # None: the stop strings of generation_config.json
    if draft is not None:
        settings["draft"] = load_draft(draft, loading)
    screen: Screen
    if as_json:
        screen = JsonLines()
    elif sys.stdin.isatty() and sys.stdout.isatty():
        screen = Terminal()
    else:
        screen = Pipe()
    with model.conversation() as conversation:
        options = {"enable_thinking": think, "template": template, "conversation": conversation, **settings}
        Talk(model, screen, artifact, system, toolbox, options).run()
