"""The tokenizer of a base with adapters: an adapter's own, where it brings another one."""

from collections.abc import Sequence
from pathlib import Path

from ...artifact import TEMPLATE_FOLDER, sha256_file
from ...errors import CheckpointError, UnsupportedError
from ...files.regular_file import check_regular
from ...files.tokenizer_file import VOCABULARY, missing_tokenizer
from .given import AdapterFolder

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    *VOCABULARY,
)
"""The files that say how text becomes tokens, and a chat becomes text."""


def text_folder(base: Path, adapters: Sequence[AdapterFolder]) -> tuple[Path, str | None]:
    """Return the folder whose tokenizer and chat templates count, and a sentence on it where it is an adapter's.

    Trainers save the tokenizer beside an adapter, and may have given it tokens or a chat template of its own.

    Raises:
        CheckpointError: a file cannot be read.
        UnsupportedError: two adapters bring different tokenizers.
    """
    found: Path | None = None
    try:
        ours = _sums(base)
        for adapter in adapters:
            theirs = _sums(adapter.folder)
            if missing_tokenizer(adapter.folder) is not None or theirs == ours:
                continue
            if found is not None and theirs != _sums(found):
                raise UnsupportedError(
                    f"{found} and {adapter.folder} bring different tokenizers; remove the tokenizer's files from the "
                    "folder whose tokenizer does not count"
                )
            found = adapter.folder
    except ValueError as error:
        raise CheckpointError(f"{error}; fetch the adapter again") from None
    if found is None:
        return base, None
    theirs = _sums(found)
    others = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    return found, f"the tokenizer is that of the adapter {found} and not the base's: {', '.join(others[:6])} differ"


def text_files(folder: Path) -> list[str]:
    """Return the names of the tokenizer's files that a folder has, its chat templates with them."""
    named = sorted(path.name for path in (folder / TEMPLATE_FOLDER).glob("*.jinja") if path.is_file())
    return [*(name for name in FILES if (folder / name).is_file()), *(f"{TEMPLATE_FOLDER}/{name}" for name in named)]


def _sums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each of the tokenizer's files, by its name."""
    sums = {}
    for name in text_files(folder):
        check_regular(folder / name)
        sums[name] = sha256_file(folder / name)
    return sums
