"""The settings of text generation that an artifact gets: checked before anything long is done."""

import json
from collections.abc import Sequence
from pathlib import Path

from ...artifact import Task
from ...errors import CheckpointError, UnsupportedError, UsageError
from ...files.generation_settings import own_settings, parse_settings
from ...files.json_file import read_object
from ...files.regular_file import is_there


def artifact_settings(
    folder: Path, task: Task, vocab_size: int, file: str | Path | None, ignored: Sequence[str]
) -> str | None:
    """Return the text of the artifact's generation_config.json; None where the checkpoint's own is copied as it is.

    Args:
        file: settings instead of the checkpoint's, in the format of generation_config.json.
        ignored: keys to leave out.

    Raises:
        CheckpointError: the checkpoint's settings cannot be read.
        UnsupportedError: they have a value that cannot be used, and that generation would use.
        UsageError: ``file`` cannot be read or used, ``ignored`` names a key that is not there, or the task is another.
    """
    if task != "text-generation":
        if file is not None or ignored:
            raise UsageError(
                f"a generation_config is for text generation, and the task is {task}; leave out generation_config "
                "and ignore_generation_keys"
            )
        return None
    try:
        path, values = own_settings(folder) if file is None else _given(Path(file))
    except ValueError as error:
        if file is None:
            raise CheckpointError(f"{error}; correct the checkpoint's file") from None
        raise UsageError(f"{error}; correct the file") from None
    for key in ignored:
        if key not in values:
            raise UsageError(f"{path} has no key {key!r} to ignore; it has {', '.join(values) or 'none'}")
    values = {key: value for key, value in values.items() if key not in ignored}
    problems = parse_settings(path, values, vocab_size).applied_problems()
    if problems:
        ways = " ".join(f"--ignore-generation-key {key}" for key in problems)
        them = "them" if len(problems) > 1 else "it"
        raise (UnsupportedError if file is None else UsageError)(
            f"{path}: {'; '.join(problems.values())}; leave {them} out with {ways}, or give settings of your own with "
            "--generation-config FILE"
        )
    if file is None and not ignored:
        return None
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _given(file: Path) -> tuple[Path, dict[str, object]]:
    if not is_there(file):
        raise ValueError(f"{file}: there is no such file")
    return file, read_object(file)
