"""The text that source and artifact read: windows of tokens, spread evenly over a file.

The default text is ``text.txt`` beside this file, written for this project: prose, several languages, code, tables,
numbers. No calibration text contains it.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ...runtime.text.tokenizer import Tokenizer

Tokens = NDArray[np.int64]
DEFAULT_TEXT = Path(__file__).with_name("text.txt")
SEED = 20_240_607


def read_tokens(text: Path | None, tokenizer: Tokenizer | None, vocab_size: int, least: int) -> Tokens:
    """Return the tokens of a text, int64 [N]; random tokens if there is no tokenizer.

    Args:
        text: a file in UTF-8; None for the default one.
        least: the number of tokens that the text must have.

    Raises:
        UsageError: the file is not text, is empty or too short, or there is no tokenizer for it.
    """
    if tokenizer is None:
        if text is not None:
            raise UsageError(
                f"{text} is text, and the artifact has no tokenizer.json to read it with; leave out --text"
            )
        return np.random.default_rng(SEED).integers(0, vocab_size, max(least, 4096))
    try:
        content = (text or DEFAULT_TEXT).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{text}: {error.strerror}; give a text file as --text") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{text} is not text in UTF-8 (byte {error.start:,}); convert it, or give another") from None
    tokens = np.asarray(tokenizer.encode_with_offsets(content, add_special_tokens=False).ids, dtype=np.int64)
    if tokens.size == 0:
        raise UsageError(f"{text} is empty: it has no tokens; give a text as --text")
    if tokens.size < least:
        raise UsageError(
            f"{text} has {tokens.size:,} tokens, and one window has {least:,}; give a longer text, "
            "or a smaller --window"
        )
    return tokens


def windows(tokens: Tokens, count: int, length: int) -> list[Tokens]:
    """Return ``count`` windows of ``length`` tokens; fewer if the text is short."""
    count = min(count, tokens.size // length)
    starts = np.linspace(0, tokens.size - length, count).astype(int) if count > 1 else [0]
    return [tokens[start : start + length] for start in starts]


def stretch(tokens: Tokens, length: int) -> Tokens:
    """Return the text, repeated to fill ``length`` tokens."""
    return np.resize(tokens, length)
