"""``intaglio verify``: compare an artifact's files with the checksums in its manifest."""

from pathlib import Path

import click

from ...artifact import Precision, read_manifest, verify
from ...errors import CheckError
from ..options import example, json_option, precision_option
from ..progress import progress
from ..show import echo, print_json
from ..sizes import size


@click.command(short_help="Compare an artifact's files with its checksums.", epilog=example("intaglio verify out"))
@click.argument("artifact", type=click.Path(path_type=Path))
@precision_option
@json_option
def command(artifact: Path, precision: Precision | None, as_json: bool) -> None:
    """Compare the size and SHA-256 of every file of ARTIFACT with its manifest; exit 1 if they differ."""
    manifest = read_manifest(artifact, precision)
    total = sum(entry.size for entry in manifest.files.values())
    done = 0
    with progress() as report:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            report("files", done, total)

        problems = verify(artifact, manifest, advance)
    if as_json:
        print_json({"artifact": str(artifact), "ok": not problems, "problems": problems})
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise CheckError(f"{artifact} does not match its manifest; export it again{lines}")
    if not as_json:
        echo(f"{artifact}: {len(manifest.files)} files, {size(total)}, all match the manifest")
