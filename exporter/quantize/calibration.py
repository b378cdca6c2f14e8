"""The calibration text: windows of tokens, spread evenly over a file.

The default text is ``calibration.txt`` beside this file: explanatory English prose (from the Jargon File 4.4.7, which
is in the public domain), the Universal Declaration of Human Rights in a dozen languages, and Python source of this
project. A model that serves another domain is better calibrated on a text from there.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...errors import CheckpointError, UsageError
from ...files.library_errors import library_errors
from ...files.tokenizer_file import read_tokenizer

DEFAULT_TEXT = Path(__file__).with_name("calibration.txt")
WINDOWS = 64
WINDOW = 512
LEAST_TOKENS = 2048
"""The least number of tokens; fewer do not represent a projection's inputs."""


@dataclass(frozen=True)
class Calibration:
    """A text file and the limits of its use: at most ``windows`` windows of ``length`` tokens."""

    text: Path = DEFAULT_TEXT
    windows: int = WINDOWS
    length: int = WINDOW


def read_windows(folder: Path, calibration: Calibration, context: int) -> Tensor:
    """Return the text's windows in the model's tokens, int64 [W, S]; a short text gives smaller W and S.

    Args:
        folder: the folder of ``tokenizer.json``.
        context: the most tokens that the model takes.

    Raises:
        CheckpointError: the tokenizer is missing or damaged.
        UsageError: the text is not UTF-8, or too short.
    """
    try:
        tokenizer = read_tokenizer(folder)
    except ValueError as error:
        raise CheckpointError(f"{error}; fetch the checkpoint again") from None
    if tokenizer is None:
        raise CheckpointError(
            f"{folder / 'tokenizer.json'} is missing, and calibration reads text with it; add it, or use --method rtn"
        )
    try:
        text = calibration.text.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{calibration.text}: {error.strerror}; give a text file as --calibration") from None
    except UnicodeDecodeError:
        raise UsageError(f"{calibration.text} is not text in UTF-8; give a text file as --calibration") from None
    with library_errors(lambda why: UsageError(f"{calibration.text} cannot be tokenized ({why}); give another text")):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
    tokens = torch.tensor(ids, dtype=torch.int64)
    if len(tokens) < LEAST_TOKENS:
        raise UsageError(
            f"{calibration.text} has {len(tokens):,} tokens, and calibration needs at least {LEAST_TOKENS:,}; "
            "give a longer text as --calibration, or use --method rtn"
        )
    length = min(calibration.length, context, len(tokens))
    count = min(calibration.windows, len(tokens) // length)
    starts = torch.linspace(0, len(tokens) - length, count).long() if count > 1 else torch.zeros(1, dtype=torch.int64)
    return tokens[starts[:, None] + torch.arange(length)]
