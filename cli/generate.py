"""``intaglio generate``: continue a prompt."""

from dataclasses import asdict

import click

from .loading import load_as
from .options import Device, example, json_option, runtime_options
from .show import print_json
from .texts import read_text


@click.command(
    short_help="Continue a prompt.",
    epilog=example(
        "intaglio generate out 'The capital of France is' --max-new-tokens 16 --temperature 0",
        "cat prompt.txt | intaglio generate out - --stop '</s>' --json",
    ),
)
@click.argument("artifact")
@click.argument("prompt")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Stop after this many new tokens.")
@click.option("--temperature", type=float, help="0 is greedy; above 0 samples.")
@click.option("--top-k", type=int, help="Sample among the K likeliest tokens.")
@click.option("--top-p", type=float, help="Sample among the likeliest tokens that together reach P.")
@click.option("--min-p", type=float, help="Leave out tokens less likely than P times the likeliest.")
@click.option("--repetition-penalty", type=float, help="Above 1 makes tokens seen before less likely.")
@click.option("--seed", type=int, help="Makes sampling repeatable.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be given several times.")
@runtime_options
@json_option
def command(
    artifact: str,
    prompt: str,
    max_new_tokens: int | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    repetition_penalty: float | None,
    seed: int | None,
    stop: tuple[str, ...],
    device: Device,
    threads: int | None,
    revision: str | None,
    as_json: bool,
) -> None:
    """Continue PROMPT with the text-generation model in ARTIFACT, printing the text as it comes.

    PROMPT `-` reads standard input. What is not given comes from the model's generation_config.json.
    """
    from ..runtime import TextGenerator

    text = read_text(prompt)
    model = load_as(TextGenerator, "text-generation", artifact, device=device, threads=threads, revision=revision)
    if as_json:
        generation = model.generate(
            text,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            stop=stop,
        )
        print_json(asdict(generation))
        return
    pieces = model.stream(
        text,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop,
    )
    try:
        for piece in pieces:
            click.echo(piece, nl=False)
    finally:  # an interruption's message starts on a line of its own
        click.echo()
