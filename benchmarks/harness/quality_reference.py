"""The folder that the section ``quality`` compares with: token windows, and the fp32 artifact's log-probabilities."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import click

from ..artifacts.variants import OWN, REFERENCE
from .measurements import Measurement
from .records import Records
from .rounds import Jobs, run
from .windows import write_windows

WINDOWS, TOKENS = 16, 512  # windows of each text, and tokens of a window


def folder(scratch: Path, texts: Mapping[str, str]) -> Path:
    """Return the folder; its name tells its texts from others."""
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()
    return scratch / f"quality-{WINDOWS}x{TOKENS}-{digest[:12]}"


def prepare(jobs: Jobs, texts: Mapping[str, str]) -> None:
    """Write the folder, unless it is complete; make the fp32 artifact if it is missing."""
    store = jobs.store
    cache = folder(store.scratch, texts)
    if (cache / "reference.npy").is_file():
        return
    write_windows(cache, texts, store.checkpoint, WINDOWS, TOKENS)
    variant = next(variant for variant in OWN if variant.name == REFERENCE)
    store.make(variant, jobs.pythons[variant.tool])
    click.echo("the reference's predictions")
    run(*jobs(Measurement("reference", variant, settings={"reference": str(cache)})))


def forget_other_texts(records: Records, cache: Path) -> None:
    """Drop the recorded qualities of variants that were measured on other texts than the folder's."""
    others = {record["name"] for record in records.of("quality") if record.get("reference") != cache.name}
    if others:
        records.forget(["quality"], others)
