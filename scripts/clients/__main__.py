"""The command: try everything, and write or print the table."""

import tempfile
from pathlib import Path

import click
from intaglio.tests.serving.artifacts import export_all
from intaglio.tests.serving.clients.facts import facts_of
from intaglio.tests.serving.clients.runs import MODELS, every_outcome
from intaglio.tests.serving.live import live_server

from . import __doc__ as text
from .table import table, versions, write


@click.command(help=text)
@click.option("--write", "writes", is_flag=True, help="Write the table into docs/clients.md.")
def main(writes: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="intaglio-clients-") as place:
        artifacts = export_all(Path(place))
        facts = {model: facts_of(artifacts[model]) for model in MODELS}
        with live_server(artifacts) as address:
            found = every_outcome(address, facts, lambda title: click.echo(title, err=True))
    click.echo(table(found))
    if writes:
        write(f"{table(found)}\n\n{versions()}")


if __name__ == "__main__":
    main()
