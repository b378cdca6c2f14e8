"""The tokenizer of a checkpoint: checked before anything is exported, and built where there is no tokenizer.json."""

from pathlib import Path

from ..errors import CheckpointError
from ..regular_file import is_there
from ..tokenizer_file import FILE, read_tokenizer


def built_tokenizer(folder: Path) -> str | None:
    """Return the tokenizer.json to write into an artifact; None where the folder's own is copied, or there is none.

    Raises:
        CheckpointError: the tokenizer's files are damaged.
    """
    try:
        tokenizer = read_tokenizer(folder)
        return None if tokenizer is None or is_there(folder / FILE) else tokenizer.to_str(pretty=True)
    except ValueError as error:
        raise CheckpointError(f"{error}; fetch the checkpoint again") from None
