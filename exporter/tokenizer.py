"""The tokenizer of a checkpoint: checked before anything is exported, and built where there is no tokenizer.json."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from ..errors import CheckpointError
from ..files.json_fields import shown
from ..files.regular_file import is_there
from ..files.tokenizer_file import FILE, read_tokenizer
from ..machine import give_back_memory

SHOWN = 4
"""Tokens that a message names."""


@dataclass(frozen=True)
class CheckedTokenizer:
    """``built``: the tokenizer.json to write into an artifact; None where the folder's own is copied, or there is none.

    ``note`` names added tokens that the model cannot read.
    """

    built: str | None = None
    note: str | None = None


def check_tokenizer(folder: Path, vocab_size: int) -> CheckedTokenizer:
    """Read a checkpoint's tokenizer, and check that its ids are rows of the embedding.

    A vocabulary of 150,000 tokens takes 150 MB while it is read; they are given back. An added token beyond the rows is
    noted and not refused: only texts that contain it cannot be read.

    Raises:
        CheckpointError: the tokenizer's files are damaged, or those of a model with a larger vocabulary.
    """
    try:
        return _checked(folder, vocab_size)
    except ValueError as error:
        raise CheckpointError(f"{error}; fetch the checkpoint again") from None
    finally:
        give_back_memory()


def _checked(folder: Path, vocab_size: int) -> CheckedTokenizer:
    tokenizer = read_tokenizer(folder)
    if tokenizer is None:
        return CheckedTokenizer()
    note = _check_ids(tokenizer, folder, vocab_size)
    return CheckedTokenizer(None if is_there(folder / FILE) else tokenizer.to_str(pretty=True), note)


def _check_ids(tokenizer: Tokenizer, folder: Path, vocab_size: int) -> str | None:
    around = tokenizer.encode("").ids
    ids = tokenizer.get_vocab(with_added_tokens=True)
    beyond = sorted((number, token) for token, number in ids.items() if number >= vocab_size)
    if not beyond:
        return None
    named = ", ".join(f"{shown(token)} ({number:,})" for number, token in beyond[:SHOWN])
    added = tokenizer.get_added_tokens_decoder()
    if any(number not in added for number, _ in beyond) or any(number >= vocab_size for number in around):
        raise CheckpointError(
            f"{folder}: the tokenizer has {len(beyond):,} tokens with ids beyond config.json's vocab_size of "
            f"{vocab_size:,}, first {named}; the tokenizer and the weights belong to different models: fetch the "
            "tokenizer of this checkpoint"
        )
    return f"the vocabulary of {vocab_size:,} has no row for added tokens, which texts must not contain: {named}"
