"""The calibration text: windows of tokens, spread evenly over each of one or several texts.

The default text is ``calibration.txt`` beside this file: explanatory English prose (from the Jargon File 4.4.7, which
is in the public domain), the Universal Declaration of Human Rights in a dozen languages, and Python source of this
project. A model that serves another domain is better calibrated on a text from there.

Several texts get equal shares of the windows. One that is too short for its share gives all that it has, and the others
share the rest.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ...artifact import CalibrationText
from ...errors import CheckpointError, UsageError
from ...files.library_errors import library_errors
from ...files.tokenizer_file import read_tokenizer
from ...models.weight_source import WeightSource
from ..progress import Progress
from .texts.files import read_text
from .texts.generated import generate, kept
from .texts.names import DEFAULT, SELF, Text

DEFAULT_TEXT = Path(__file__).with_name("calibration.txt")
WINDOWS = 64
WINDOW = 512
LEAST_TOKENS = 2048
"""The least number of tokens of a text; fewer do not represent a projection's inputs."""

GENERATED = "generated.safetensors"


@dataclass(frozen=True)
class Calibration:
    """The texts, and the limits of their use: at most ``windows`` windows of ``length`` tokens in all."""

    texts: tuple[Text, ...] = (DEFAULT,)
    windows: int = WINDOWS
    length: int = WINDOW


@dataclass(frozen=True)
class CalibrationWindows:
    """The windows of the texts.

    Args:
        tokens: int64 [W, S]; those of several texts alternate.
        text: int64 [W], the index of each window's text.
        texts: what was read, for the manifest.
    """

    tokens: Tensor
    text: Tensor
    texts: tuple[CalibrationText, ...]

    def few(self, count: int) -> Tensor:
        """Return about ``count`` windows, int64 [W, S], evenly spread over each text, and one of each at least."""
        own = [(self.text == index).nonzero()[:, 0] for index in range(len(self.texts))]
        counts = shares(max(count, len(own)), [len(windows) for windows in own])
        chosen = [windows[spaced(len(windows), some)] for windows, some in zip(own, counts, strict=True)]
        return self.tokens[torch.cat(chosen)]


def read_windows(
    checkpoint: WeightSource, calibration: Calibration, progress: Progress, scratch: Path | None = None
) -> CalibrationWindows:
    """Return the texts' windows in the model's tokens; short texts give fewer windows and shorter ones.

    Args:
        progress: called with the stage "text" (tokens) while the model generates.
        scratch: a folder in which to keep what the model generates; None to keep nothing.

    Raises:
        CheckpointError: the tokenizer is missing or damaged.
        UsageError: a text cannot be read, is too short, or the model does not fit into memory to generate it.
        UnsupportedError: the model cannot generate text.
    """
    folder = checkpoint.text_folder
    tokenizer = _tokenizer(folder)
    read = {text: _read(text, folder, tokenizer) for text in dict.fromkeys(calibration.texts) if text != SELF}
    shortest = min((len(tokens) for tokens, _ in read.values()), default=calibration.length)
    length = min(calibration.length, checkpoint.config.context_length, shortest)
    texts = list(dict.fromkeys(calibration.texts))
    if calibration.windows < len(texts):
        raise UsageError(
            f"{calibration.windows} windows for {len(texts)} calibration texts; give at least {len(texts)} as --windows"
        )
    most = [calibration.windows if text == SELF else len(read[text][0]) // length for text in texts]
    counts = shares(calibration.windows, most)
    windows, found = [], []
    for text, count in zip(texts, counts, strict=True):
        if text == SELF:
            beginnings, _ = read.get(DEFAULT) or _read(DEFAULT, folder, tokenizer)
            report = partial(progress, "text")
            make = partial(generate, checkpoint, tokenizer, beginnings, count, length, report)
            part = make() if scratch is None else kept(scratch / GENERATED, checkpoint, (count, length), make)
            digest = hashlib.sha256(part.numpy().tobytes()).hexdigest()
        else:
            tokens, digest = read[text]
            part = _spread(tokens, count, length)
        windows.append(part)
        found.append(CalibrationText(text.name if isinstance(text, Path) else text, digest, part.numel()))
    # The place of each window among those of its text; sorted by it, the texts alternate.
    places = torch.cat([(torch.arange(count) + 0.5) / count for count in counts])
    order = torch.argsort(places, stable=True)
    indices = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return CalibrationWindows(torch.cat(windows)[order], indices[order], tuple(found))


def shares(total: int, most: Sequence[int]) -> list[int]:
    """Divide ``total`` into equal shares, none above its entry of ``most``; what one cannot take goes to the others."""
    found = [0] * len(most)
    left = min(total, sum(most))
    while left:
        open_ones = [index for index, limit in enumerate(most) if found[index] < limit]
        for place, index in enumerate(open_ones):
            equal = left // len(open_ones) + (place < left % len(open_ones))
            found[index] += min(equal, most[index] - found[index])
        left = min(total, sum(most)) - sum(found)
    return found


def spaced(size: int, count: int) -> Tensor:
    """Return ``count`` of the numbers below ``size``, evenly spaced from the first to the last, int64 [count]."""
    return torch.linspace(0, size - 1, count).long() if count > 1 else torch.zeros(count, dtype=torch.int64)


def _tokenizer(folder: Path) -> Tokenizer:
    try:
        tokenizer = read_tokenizer(folder)
    except ValueError as error:
        raise CheckpointError(f"{error}; fetch the checkpoint again") from None
    if tokenizer is None:
        raise CheckpointError(
            f"{folder / 'tokenizer.json'} is missing, and calibration reads text with it; add it, or use --method rtn"
        )
    return tokenizer


def _read(text: Text, folder: Path, tokenizer: Tokenizer) -> tuple[Tensor, str]:
    """Return the tokens of a text, int64 [T], and the SHA-256 of its file."""
    path = text if isinstance(text, Path) else DEFAULT_TEXT
    content, digest = read_text(path, folder)
    with library_errors(lambda why: UsageError(f"{path} cannot be tokenized ({why}); give another text")):
        ids = tokenizer.encode(content, add_special_tokens=False).ids
    if len(ids) < LEAST_TOKENS:
        raise UsageError(
            f"{path} has {len(ids):,} tokens, and calibration needs at least {LEAST_TOKENS:,}; "
            "give a longer text as --calibration, or use --method rtn"
        )
    return torch.tensor(ids, dtype=torch.int64), digest


def _spread(tokens: Tensor, count: int, length: int) -> Tensor:
    """Return ``count`` windows of a text, the first at its beginning and the last at its end, int64 [count, length]."""
    return tokens[spaced(len(tokens) - length + 1, count)[:, None] + torch.arange(length)]
