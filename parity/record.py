"""Write a report into its artifact: ``parity.json``, ``parity.html``, and the verdict in the manifest."""

import os
from dataclasses import replace
from pathlib import Path

from ..artifact import MANIFEST, FileEntry, Parity, read_manifest, sha256_file
from ..errors import OutputError
from .page import render
from .report.report import Report

JSON, HTML = "parity.json", "parity.html"


def record(folder: Path, report: Report) -> None:
    """Write the report into the artifact's folder, and last the manifest, which lists it with its verdict.

    Raises:
        OutputError: the folder cannot be written to; the manifest is unchanged.
    """
    manifest = read_manifest(folder)
    try:
        write_whole(folder / JSON, report.to_json())
        write_whole(folder / HTML, render(report))
        written = {n: FileEntry(sha256_file(folder / n), (folder / n).stat().st_size) for n in (JSON, HTML)}
        manifest = replace(manifest, files=manifest.files | written, parity=Parity(report.verdict))
        write_whole(folder / MANIFEST, manifest.to_json())
    except OSError as error:
        raise OutputError(
            f"{folder}: the parity report cannot be written ({error.strerror}); see to the disk"
        ) from None


def write_whole(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it, so that it is never incomplete."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
