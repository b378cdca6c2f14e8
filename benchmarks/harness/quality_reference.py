"""The folder that the section ``quality`` compares with: token windows, and the fp32 artifact's log-probabilities."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np
from tokenizers import Tokenizer

from ..artifacts.variants import OWN, REFERENCE
from .measurements import Measurement
from .records import Records
from .rounds import Jobs, run
from .windows import spread

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
    cache.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(store.checkpoint / "tokenizer.json"))
    windows = {name: spread(text, tokenizer, WINDOWS, TOKENS) for name, text in texts.items()}
    np.save(cache / "windows.npy", np.concatenate(list(windows.values())))
    (cache / "names.json").write_text(json.dumps([name for name in windows for _ in range(WINDOWS)]))
    variant = next(variant for variant in OWN if variant.name == REFERENCE)
    store.make(variant, jobs.pythons[variant.tool])
    click.echo("the reference's predictions")
    run(*jobs(Measurement("reference", variant, settings={"reference": str(cache)})))


def forget_other_texts(records: Records, cache: Path) -> None:
    """Drop the recorded qualities of variants that were measured on other texts than the folder's."""
    others = {record["name"] for record in records.of("quality") if record.get("reference") != cache.name}
    if others:
        records.forget(["quality"], others)
