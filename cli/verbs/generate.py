"""``intaglio generate``: continue a prompt."""

from dataclasses import asdict
from typing import Any

import click

from ...errors import UsageError
from ..loading import load_as
from ..options import (
    Device,
    KVCache,
    example,
    json_option,
    kv_cache_option,
    runtime_options,
    sampling_options,
    speculation_options,
)
from ..show import print_json
from ..texts import read_file, read_text


@click.command(
    short_help="Continue a prompt.",
    epilog=example(
        "intaglio generate out 'The capital of France is' --max-new-tokens 16 --temperature 0",
        "echo 'In 1942, the ship' | intaglio generate out - --stop . --logprobs 3 --json",
        "intaglio generate out 'It was built in ' --regex '1[0-9]{3}'",
        """echo '{"enum": ["yes", "no"]}' | intaglio generate out 'Is it so? ' --json-schema -""",
    ),
)
@click.argument("artifact")
@click.argument("prompt")
@sampling_options
@click.option("--json-schema", metavar="FILE", help="Write JSON that fits the schema in FILE.")
@click.option("--regex", metavar="REGEX", help="Write text that fits a regular expression.")
@click.option("--grammar", metavar="FILE", help="Write text that fits the grammar in FILE, in Lark's notation.")
@click.option(
    "--logprobs", type=int, metavar="N", help="With --json: each token's log-probability, and the N likeliest."
)
@speculation_options
@kv_cache_option
@runtime_options
@json_option
def command(
    artifact: str,
    prompt: str,
    json_schema: str | None,
    grammar: str | None,
    logprobs: int | None,
    draft: str | None,
    kv_cache: KVCache,
    device: Device,
    threads: int | None,
    revision: str | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Continue PROMPT with the text-generation model in ARTIFACT, printing the text as it comes.

    PROMPT or FILE `-` reads standard input. What is not given comes from the model's generation_config.json. A text
    that has spent its tokens before it fits its schema, expression or grammar is given as it is; `finish_reason` in
    --json is then `length`.
    """
    if logprobs is not None and not as_json:
        raise UsageError("--logprobs are printed as JSON only; add --json")
    if [prompt, json_schema, grammar].count("-") > 1:
        raise UsageError("only one of PROMPT, --json-schema and --grammar can be read from standard input; give files")
    from ...runtime import TextGenerator

    settings |= {
        "stop": settings["stop"] or None,  # none given: the checkpoint's own
        "json_schema": None if json_schema is None else read_file(json_schema),
        "grammar": None if grammar is None else read_file(grammar),
        "logprobs": logprobs,
    }
    text = read_text(prompt)
    loading: dict[str, Any] = {"device": device, "threads": threads, "kv_cache": kv_cache}
    model = load_as(TextGenerator, "text-generation", artifact, revision=revision, **loading)
    if draft is not None:
        settings["draft"] = load_as(TextGenerator, "text-generation", draft, revision=None, **loading)
    if as_json:
        generation = asdict(model.generate(text, **settings))
        if logprobs is None:
            del generation["logprobs"]
        print_json(generation)
        return
    pieces = model.stream(text, **settings)
    try:
        for piece in pieces:
            click.echo(piece, nl=False)
    finally:  # an interruption's message starts on a line of its own
        click.echo()
