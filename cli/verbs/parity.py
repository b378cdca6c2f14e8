"""``intaglio parity``: compare an artifact with its source, and locate the first difference."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...errors import CheckError, OutputError, UsageError
from ...extras import export_extra
from ..options import adapter_option, device_option, example, json_option, threads_option
from ..parity_report import print_report
from ..progress import progress
from ..show import print_json

if TYPE_CHECKING:
    from ...runtime.engine.session import Device


def parse_limits(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    """Return the limit of each measure, from values ``MEASURE=NUMBER``.

    Raises:
        click.BadParameter: a value has another form.
    """
    limits = {}
    for value in values:
        measure, equals, number = value.partition("=")
        try:
            limits[measure] = float(number)
        except ValueError:
            equals = ""
        if not equals:
            raise click.BadParameter(f"{value!r} is not MEASURE=NUMBER; write it like 'kl_mean=0.01'.")
    return limits


@click.command(
    short_help="Compare an artifact with its source: faithful, drifted or broken.",
    epilog=example(
        "intaglio parity out --source ./checkpoint",
        "intaglio parity out --source ./checkpoint --html report.html",
        "intaglio parity out --source ./checkpoint --limit kl_mean=0.01 --json",
    ),
)
@click.argument("artifact")
@click.option("--source", metavar="CHECKPOINT", help="A folder or a hub id.  [default: the hub id in the manifest]")
@click.option("--revision", help="Commit, tag or branch, if CHECKPOINT is a hub id.")
@adapter_option
@click.option("--text", type=click.Path(path_type=Path), metavar="FILE", help="Text that both read, in UTF-8.")
@click.option("--windows", type=click.IntRange(min=1), default=4, show_default=True, help="Windows of that text.")
@click.option("--window", type=click.IntRange(min=8), default=192, show_default=True, help="Tokens per window.")
@click.option(
    "--steps", type=click.IntRange(min=1), default=32, show_default=True, help="Tokens of single-token decode."
)
@click.option(
    "--max-length",
    type=click.IntRange(min=8),
    default=8192,
    show_default=True,
    help="Tokens of the longest sequence; cases that need more, such as wide sliding windows, are not compared.",
)
@click.option(
    "--limit",
    "limits",
    callback=parse_limits,
    multiple=True,
    metavar="MEASURE=NUMBER",
    help="Largest kl_mean, relative_error or flips (a share of the positions); above it the artifact is broken. May be "
    "given several times.",
)
@click.option("--reference", type=click.Choice(["transformers"]), help="Also compare both with this implementation.")
@click.option("--html", type=click.Path(path_type=Path), metavar="OUT", help="Write the report as an HTML page.")
@click.option("--record", is_flag=True, help="Write verdict and report into ARTIFACT, as export and quantize do.")
@device_option
@threads_option
@json_option
def command(
    artifact: str,
    source: str | None,
    revision: str | None,
    adapters: tuple[str, ...],
    text: Path | None,
    windows: int,
    window: int,
    steps: int,
    max_length: int,
    limits: dict[str, float],
    reference: str | None,
    html: Path | None,
    record: bool,
    device: "Device",
    threads: int | None,
    as_json: bool,
) -> None:
    """Run ARTIFACT and its source checkpoint on the same text, and compare their outputs.

    The source runs layer by layer in float32, so it may be larger than memory. Exit codes: 0 faithful, or drifted
    within the limits of its precision; 1 broken; 2 the two cannot be compared, or one is damaged.
    """
    if html is not None and not html.absolute().parent.is_dir():
        raise OutputError(f"{html}: there is no folder {html.absolute().parent}; create it, or choose another --html")
    if record and limits:
        raise UsageError("--record needs the default limits; leave out --limit or --record")
    with export_extra():
        from ...models.adapters.given import parse_adapter
        from ...parity import CheckOptions, check, render
        from ...parity import record as record_report
        from ...parity.record import write_whole
    options = CheckOptions(
        text=text,
        windows=windows,
        window=window,
        steps=steps,
        longest=max_length,
        limits=limits,
        reference=reference,
    )
    with progress() as report:
        found = check(
            artifact,
            source,
            adapters=[parse_adapter(given) for given in adapters],
            options=options,
            device=device,
            threads=threads,
            revision=revision,
            progress=report,
        )
    if html is not None:
        write_whole(html, render(found))
    if record:
        record_report(Path(artifact), found)
    if as_json:
        print_json(found.to_dict())
    else:
        print_report(found, html)
    if found.verdict == "broken":
        raise CheckError(f"{artifact} is broken: it differs from its source")
