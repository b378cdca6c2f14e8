"""What quality.py compares with: the windows, and the reference's log-probabilities of them."""

import json
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
from tokenizers import Tokenizer
from windows import spread, texts

TOKENS = 512


def prepare(cache: Path, checkpoint: Path, count: int, reference: Path) -> None:
    """Fill ``cache`` with ``count`` windows of each text, unless it is there; ``reference`` is the fp32 artifact."""
    if (cache / "reference.npy").is_file():
        return
    cache.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    found = {name: spread(text, tokenizer, count, TOKENS) for name, text in texts().items()}
    np.save(cache / "windows.npy", np.concatenate(list(found.values())))
    (cache / "names.json").write_text(json.dumps([name for name in found for _ in range(count)]))
    click.echo("the reference's predictions")
    script = Path(__file__).with_name("quality.py")
    subprocess.run([sys.executable, str(script), "reference", str(reference), str(cache)], check=True)
