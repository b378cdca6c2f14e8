"""``intaglio generate``: continue a prompt."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ...errors import UsageError
from ..loading import Loading, load_draft, load_generator
from ..options import (
    example,
    generation_config_option,
    json_option,
    kv_cache_option,
    loading_options,
    sampling_options,
    speculation_options,
)
from ..show import echo, print_json
from ..texts import read_file, read_text

if TYPE_CHECKING:
    from ...runtime import Generation


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
@click.option("--json-schema", metavar="FILE", help="Generate JSON that is valid for the schema in FILE.")
@click.option("--regex", metavar="REGEX", help="Generate text that matches a regular expression.")
@click.option("--grammar", metavar="FILE", help="Generate text of the grammar in FILE, in Lark notation.")
@click.option(
    "--logprobs",
    type=int,
    metavar="N",
    help="With --json: each token's log-probability, and the N most likely tokens.",
)
@click.option(
    "--num-return-sequences",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --json: a list of N samples, or of the N best texts of --num-beams.",
)
@speculation_options
@generation_config_option
@kv_cache_option
@loading_options
@json_option
def command(
    artifact: str,
    prompt: str,
    json_schema: str | None,
    grammar: str | None,
    logprobs: int | None,
    num_return_sequences: int | None,
    draft: str | None,
    loading: Loading,
    as_json: bool,
    **settings: Any,
) -> None:
    """Continue PROMPT with the text-generation model in ARTIFACT and stream the text.

    PROMPT or FILE `-` reads standard input. Options that are not given are read from the model's
    generation_config.json. If the token limit ends a text before its schema, expression or grammar is complete, the
    incomplete text is printed, and `finish_reason` in --json is `length`.
    """
    if logprobs is not None and not as_json:
        raise UsageError("--logprobs needs JSON output; add --json")
    if num_return_sequences is not None and not as_json:
        raise UsageError("--num-return-sequences needs JSON output; add --json")
    if [prompt, json_schema, grammar].count("-") > 1:
        raise UsageError(
            "only one of PROMPT, --json-schema and --grammar can read standard input; give files for the others"
        )
    settings |= {
        "stop": settings["stop"] or None,  # None: the stop strings of generation_config.json
        "json_schema": None if json_schema is None else read_file(json_schema),
        "grammar": None if grammar is None else read_file(grammar),
        "logprobs": logprobs,
    }
    text = read_text(prompt)
    new_tokens = settings["max_new_tokens"]
    # A token of these models' tokenizers is one byte or more.
    longest = None if new_tokens is None else len(text.encode()) + new_tokens
    model = load_generator(artifact, loading, longest)
    if draft is not None:
        settings["draft"] = load_draft(draft, loading, longest)
    if as_json:
        if num_return_sequences is None:
            print_json(_document(model.generate(text, **settings)))
        else:
            several = model.generate(text, num_return_sequences=num_return_sequences, **settings)
            print_json([_document(one) for one in several])
        return
    stream = model.stream(text, **settings)
    try:
        for chunk in stream:
            echo(chunk, nl=False)
    finally:  # also on Ctrl-C, whose message starts a new line
        echo()


def _document(generation: "Generation") -> dict[str, Any]:
    """Return a generation as JSON, without what was not requested."""
    document = asdict(generation)
    return {name: value for name, value in document.items() if value is not None or name not in ("logprobs", "score")}
