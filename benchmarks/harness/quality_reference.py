"""The folder that the section ``quality`` compares with: token windows, and the fp32 artifact's log-probabilities."""

import json
from pathlib import Path

import click
import numpy as np
from tokenizers import Tokenizer

from ..artifacts.variants import OWN, REFERENCE
from .measurements import Measurement
from .rounds import Jobs, run
from .windows import spread, texts

WINDOWS, TOKENS = 16, 512  # windows of each text, and tokens of a window


def folder(scratch: Path) -> Path:
    """Return the folder; its name says what it holds."""
    return scratch / f"quality-{WINDOWS}x{TOKENS}"


def prepare(jobs: Jobs) -> None:
    """Write the folder, unless it is complete; make the fp32 artifact if it is missing."""
    store = jobs.store
    cache = folder(store.scratch)
    if (cache / "reference.npy").is_file():
        return
    cache.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(store.checkpoint / "tokenizer.json"))
    windows = {name: spread(text, tokenizer, WINDOWS, TOKENS) for name, text in texts().items()}
    np.save(cache / "windows.npy", np.concatenate(list(windows.values())))
    (cache / "names.json").write_text(json.dumps([name for name in windows for _ in range(WINDOWS)]))
    variant = next(variant for variant in OWN if variant.name == REFERENCE)
    store.make(variant, jobs.pythons[variant.tool])
    click.echo("the reference's predictions")
    run(*jobs(Measurement("reference", variant, settings={"reference": str(cache)})))
