"""``intaglio chat``: a conversation in the terminal, or a line a message in a pipe."""

import sys
from pathlib import Path
from typing import Any

import click

from ..loading import load_as
from ..options import Device, KVCache, example, kv_cache_option, runtime_options, sampling_options, speculation_options


@click.command(
    short_help="Talk with a model.",
    epilog=example(
        "intaglio chat out --system 'You are brief.'",
        "echo 'Where is Seoul?' | intaglio chat out --max-new-tokens 32 --temperature 0",
        "printf '%s\\n' 'I am Ada.' 'Who am I?' | intaglio chat out --json --seed 1",
    ),
)
@click.argument("artifact")
@click.option("--system", metavar="TEXT", help="What the model is told before the conversation.")
@click.option("--think/--no-think", default=None, help="Whether it reasons first, where its template asks.")
@click.option(
    "--tools",
    "tool_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="FILE.py: its functions, which are run when the model calls them (and FILE.py itself, now). "
    "FILE.json: schemas of functions, whose results you type.",
)
@sampling_options
@speculation_options
@kv_cache_option
@runtime_options
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each answer, and nothing else.")
def command(
    artifact: str,
    system: str | None,
    think: bool | None,
    tool_file: Path | None,
    draft: str | None,
    kv_cache: KVCache,
    device: Device,
    threads: int | None,
    revision: str | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Talk with the text-generation model in ARTIFACT, with its own chat template.

    On a terminal, Ctrl-C stops an answer, and Ctrl-D or a second Ctrl-C ends the conversation; `/help` lists what
    else there is. From a pipe every line is a message, and only the answers are printed. What is not given comes from
    the model's generation_config.json.
    """
    from ...runtime import TextGenerator
    from ..chatting.screen import JsonLines, Pipe, Screen, Terminal
    from ..chatting.talk import Talk
    from ..chatting.toolfile import NO_TOOLS, read_tools

    toolbox = read_tools(tool_file) if tool_file is not None else NO_TOOLS
    loading: dict[str, Any] = {"device": device, "threads": threads, "kv_cache": kv_cache}
    model = load_as(TextGenerator, "text-generation", artifact, revision=revision, **loading)
    settings["stop"] = settings["stop"] or None  # none given: the checkpoint's own
    if draft is not None:
        settings["draft"] = load_as(TextGenerator, "text-generation", draft, revision=None, **loading)
    screen: Screen
    if as_json:
        screen = JsonLines()
    elif sys.stdin.isatty() and sys.stdout.isatty():
        screen = Terminal()
    else:
        screen = Pipe()
    with model.conversation() as conversation:
        options = {"enable_thinking": think, "conversation": conversation, **settings}
        Talk(model, screen, artifact, system, toolbox, options).run()
