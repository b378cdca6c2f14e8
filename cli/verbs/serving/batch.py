"""``intaglio batch``: answer a file of requests."""

import asyncio
from pathlib import Path

import click

from ....errors import UsageError
from ....extras import serve_extra
from ...loading import Loading, name_artifacts
from ...options import example, json_option, kv_cache_option, loading_options
from ...progress import progress
from ...show import print_facts, print_json

MOST_WAITING = 1_000_000


@click.command(
    short_help="Answer a file of requests.",
    epilog=example(
        "intaglio batch requests.jsonl answers.jsonl out",
        "intaglio batch requests.jsonl answers.jsonl small=out/int4 embed=org/name --slots 16",
    ),
)
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="IN")
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path), metavar="OUT")
@click.argument("artifacts", nargs=-1, required=True, metavar="[NAME=]ARTIFACT...")
@click.option(
    "--slots",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="How many texts a model generates at the same time.",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="The most tokens of a request, prompt and continuation together.  [default: the model's context]",
)
@kv_cache_option
@loading_options
@json_option
def command(
    source: Path,
    target: Path,
    artifacts: tuple[str, ...],
    slots: int,
    max_length: int | None,
    loading: Loading,
    as_json: bool,
) -> None:
    """Answer the requests in IN, a file in the format of OpenAI's Batch API, and write the answers to OUT.

    Each line of IN is {"custom_id", "method": "POST", "url": "/v1/chat/completions", "body"}, where body.model is the
    NAME of an ARTIFACT, and each line of OUT the answer to one, in the same order. A line that cannot be answered has
    an error and stops no other. Run the same command again after an interruption: it goes on where it was.
    """
    if source.resolve() == target.resolve():
        raise UsageError(f"{target} has the requests; give another file for the answers")
    named = name_artifacts(artifacts)
    with serve_extra():
        from ....serving.app import create_app
        from ....serving.batch.file import MAX_LINE, answer_file
        from ....serving.engine.models import Models, named_models
        from ....serving.settings import Settings

    # Nobody else sends requests: no more of them wait than this sends at once.
    settings = Settings(slots=slots, max_length=max_length, max_queue=MOST_WAITING, max_body=MAX_LINE)
    models = Models(named_models(named, loading.revision, loading.precision), settings, loading.options())
    counts = {"lines": 0, "failed": 0}

    async def run() -> None:
        app = create_app(models, settings)
        with progress() as report:

            def count(done: int, lines: int, failed: bool) -> None:
                counts["lines"], counts["failed"] = done, counts["failed"] + failed
                report("lines", done, lines)

            async with app.router.lifespan_context(app):
                await answer_file(app, source, target, 4 * slots, count)

    asyncio.run(run())
    if as_json:
        print_json({"answers": str(target), **counts})
    else:
        print_facts([("answers", str(target)), *((name, f"{count:,}") for name, count in counts.items())])
