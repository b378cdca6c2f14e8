"""The checkpoint's defaults of generation, which apply where a call gives none."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import ArtifactError, UsageError
from ...files.generation_settings import INERT_KEYS, KEYS, CheckpointSettings, checkpoint_settings, parse_settings
from ...files.json_file import read_object
from ...files.regular_file import is_there
from ...known_options import check_options
from ..text.tokenizer import Tokenizer

Override = str | Path | Mapping[str, Any]
"""Settings instead of an artifact's own: a file in the format of generation_config.json, or its keys and values."""


def read_defaults(
    folder: Path, tokenizer: Tokenizer | None, vocab_size: int, override: Override | None = None
) -> CheckpointSettings:
    """Read the settings of an artifact; end tokens that they do not name are tokenizer_config.json's.

    A value that cannot be used is an error of the calls to which it applies.

    Raises:
        ArtifactError: a file cannot be read.
        UsageError: the override cannot be read, or has a value that cannot be used.
    """
    if override is not None:
        defaults = _read_override(override, vocab_size)
    else:
        try:
            defaults = checkpoint_settings(folder, vocab_size)
        except ValueError as error:
            raise ArtifactError(f"{error}; export the model again") from None
    if "eos_token_id" in {*defaults.values, *defaults.problems} or tokenizer is None:
        return defaults
    end = tokenizer.eos_token_id
    ends = () if end is None or end >= vocab_size else (end,)
    return replace(defaults, values={**defaults.values, "eos_token_id": ends})


def _read_override(override: Override, vocab_size: int) -> CheckpointSettings:
    if isinstance(override, Mapping):
        check_options("generation_config", override, [*KEYS, *INERT_KEYS])
        found = parse_settings(Path("generation_config"), override, vocab_size)
    else:
        path = Path(override)
        if not is_there(path):
            raise UsageError(f"{path}: there is no such file; give one in the format of generation_config.json")
        try:
            found = parse_settings(path, read_object(path), vocab_size)
        except ValueError as error:
            raise UsageError(f"{error}; correct the file") from None
    if problems := found.applied_problems():
        raise UsageError(f"{found.path}: {'; '.join(problems.values())}; correct or remove it")
    return found
