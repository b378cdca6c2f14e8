"""``intaglio card``: print the model card with which an artifact is published."""

from pathlib import Path

import click

from ...artifact import Precision
from ..options import base_model_option, bench_option, example, json_option, precision_option
from ..show import echo, print_json


@click.command(
    short_help="Print an artifact's model card.",
    epilog=example(
        "intaglio card out my-name/Qwen2-0.5B-Instruct-ONNX",
        "intaglio bench out --json > bench.json; intaglio card out my-name/model --bench bench.json",
    ),
)
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("repository", metavar="ORG/NAME")
@precision_option
@bench_option
@base_model_option
@json_option
def command(
    artifact: Path,
    repository: str,
    precision: Precision | None,
    bench: Path | None,
    base_model: str | None,
    as_json: bool,
) -> None:
    """Print the README.md with which `intaglio push` publishes ARTIFACT as ORG/NAME. The hub is not asked."""
    from ...publishing import preview

    card = preview(artifact, repository, precision=precision, bench=bench, base_model=base_model)
    if as_json:
        print_json({"artifact": str(artifact), "repository": repository, "card": card})
    else:
        echo(card, nl=False)
