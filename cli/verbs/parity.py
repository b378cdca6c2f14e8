"""``intaglio parity``: is the artifact the same model as its source, and if not, where did it go wrong?"""

from pathlib import Path

import click

from ...errors import CheckError, OutputError, UsageError
from ...extras import export_extra
from ..options import Device, example, json_option
from ..progress import progress
from ..show import print_json
from ..verdict import print_report


def parse_limits(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    """Limit by measure, from several ``MEASURE=NUMBER``.

    Raises:
        click.BadParameter: one is none.
    """
    found = {}
    for value in values:
        measure, equals, number = value.partition("=")
        try:
            found[measure] = float(number)
        except ValueError:
            equals = ""
        if not equals:
            raise click.BadParameter(f"{value!r} is no MEASURE=NUMBER; write it like 'kl_mean=0.01'.")
    return found


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
@click.option("--revision", help="Commit, tag or branch, where CHECKPOINT is a hub id.")
@click.option("--text", type=click.Path(path_type=Path), metavar="FILE", help="What both read, in UTF-8.")
@click.option("--windows", type=click.IntRange(min=1), default=4, show_default=True, help="How much of that text.")
@click.option("--window", type=click.IntRange(min=8), default=192, show_default=True, help="Tokens of one window.")
@click.option("--steps", type=click.IntRange(min=1), default=32, show_default=True, help="Tokens decoded one by one.")
@click.option(
    "--max-length",
    type=click.IntRange(min=8),
    default=8192,
    show_default=True,
    help="Tokens of the longest sequence; what takes more, as a wide sliding window does, is named and left out.",
)
@click.option(
    "--limit",
    "limits",
    callback=parse_limits,
    multiple=True,
    metavar="MEASURE=NUMBER",
    help="Broken is where kl_mean, relative_error or flips (a share of the positions) is beyond this; repeatable.",
)
@click.option("--reference", type=click.Choice(["transformers"]), help="Compare with this as well.")
@click.option("--html", type=click.Path(path_type=Path), metavar="OUT", help="Write the report as one page.")
@click.option("--record", is_flag=True, help="Put verdict and report into ARTIFACT, as export and quantize do.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="For ARTIFACT.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: the CPUs at hand]")
@json_option
def command(
    artifact: str,
    source: str | None,
    revision: str | None,
    text: Path | None,
    windows: int,
    window: int,
    steps: int,
    max_length: int,
    limits: dict[str, float],
    reference: str | None,
    html: Path | None,
    record: bool,
    device: Device,
    threads: int | None,
    as_json: bool,
) -> None:
    """Run ARTIFACT and the checkpoint that it was made from over the same text, and say whether they are one model.

    The source is run layer by layer in float32, so that it may be larger than memory. Exit 0: faithful, or drifted
    within what its precision may; 1: broken; 2: the two do not belong together, or one is damaged.
    """
    if html is not None and not html.absolute().parent.is_dir():
        raise OutputError(f"{html}: there is no folder {html.absolute().parent}; make it, or give another")
    if record and limits:
        raise UsageError("--record writes the verdict by the usual limits; leave --limit or --record out")
    with export_extra():
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
        raise CheckError(f"{artifact} is broken: it is not the model that it was made from")
