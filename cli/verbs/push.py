"""``intaglio push``: publish an artifact on the Hugging Face hub."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...artifact import Precision
from ..options import base_model_option, bench_option, example, json_option, precision_option
from ..progress import progress
from ..show import echo, print_json
from ..sizes import size

if TYPE_CHECKING:
    from ...publishing import Pushed, PushedFile


@click.command(
    short_help="Publish an artifact on the Hugging Face hub.",
    epilog=example(
        "intaglio push out my-name/Qwen2-0.5B-Instruct-ONNX --dry-run",
        "intaglio push out my-name/Qwen2-0.5B-Instruct-ONNX --private",
        "intaglio push out-int8 my-name/Qwen2-0.5B-Instruct-ONNX --message 'Add int8'",
    ),
)
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("repository", metavar="ORG/NAME")
@precision_option
@click.option("--token", help="The hub's access token.  [default: that of `hf auth login`, or HF_TOKEN]")
@click.option("--private", is_flag=True, help="Make the repository private, if there is none yet.")
@click.option("--revision", metavar="BRANCH", help="The branch; it is made from the main one if there is none.")
@click.option("--message", help="Message of the commit.")
@click.option("--default", is_flag=True, help="Make this precision the one that is loaded where none is asked for.")
@click.option("--alone", is_flag=True, help="Remove all other precisions from the repository.")
@bench_option
@base_model_option
@click.option("--keep-card", is_flag=True, help="Leave the README.md of the repository as it is.")
@click.option("--force", is_flag=True, help="Push a broken artifact; replace a README.md of another origin.")
@click.option("--dry-run", is_flag=True, help="List what would be sent, and write nothing.")
@json_option
def command(
    artifact: Path,
    repository: str,
    precision: Precision | None,
    token: str | None,
    private: bool,
    revision: str | None,
    message: str | None,
    default: bool,
    alone: bool,
    bench: Path | None,
    base_model: str | None,
    keep_card: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Publish ARTIFACT as the repository ORG/NAME of the Hugging Face hub, with a model card, in one commit.

    Only the files in the manifest are sent, and none that the repository has already. A repository may hold an artifact
    of every precision; the pushed one takes the place of the same precision. A push that is interrupted changes
    nothing, and goes on when it is run again.
    """
    from ...publishing import push

    with progress() as report:
        pushed = push(
            artifact,
            repository,
            precision=precision,
            token=token,
            private=private,
            revision=revision,
            message=message,
            default=default,
            alone=alone,
            bench=bench,
            base_model=base_model,
            keep_card=keep_card,
            force=force,
            dry_run=dry_run,
            progress=report,
        )
    if as_json:
        print_json({"dry_run": dry_run, **asdict(pushed)})
    else:
        _print(pushed, dry_run)


def _print(pushed: "Pushed", dry_run: bool) -> None:
    for label, files in (("would send" if dry_run else "sent", pushed.sent), ("there already", pushed.there)):
        for file in files:
            echo(f"{label}\t{file.name}\t{size(file.size)}")
    for name in pushed.removed:
        echo(f"{'would remove' if dry_run else 'removed'}\t{name}")
    echo(f"{'to ' if dry_run else ''}{pushed.url}: {_total(pushed.sent)}, {len(pushed.there)} there already")


def _total(files: "tuple[PushedFile, ...]") -> str:
    return f"{len(files)} files, {size(sum(file.size for file in files))}"
