"""What a folder reads text with: its tokenizer and its chat templates, or why it has none."""

from pathlib import Path

from ...artifact import Task
from ...errors import ArtifactError
from ...regular_file import is_there
from ...tokenizer_file import FILE, VOCABULARY, missing_tokenizer


def text_facts(folder: Path, task: Task) -> dict[str, str]:
    """Return one line on the tokenizer and, for a language model, one on the chat templates.

    Only the templates are read; a file that is something else is named in the line.
    """
    facts = {"tokenizer": _tokenizer(folder)}
    if task == "text-generation":
        facts["template"] = _templates(folder)
    return facts


def _tokenizer(folder: Path) -> str:
    try:
        missing = missing_tokenizer(folder)
        if missing:
            return f"none: {missing}; token ids only"
        return FILE if is_there(folder / FILE) else f"built from {' and '.join(VOCABULARY)}"
    except ValueError as error:
        return str(error)


def _templates(folder: Path) -> str:
    from ...runtime.chat.template import read_chat_format

    try:
        names = list(read_chat_format(folder).templates)
    except ArtifactError as error:
        return str(error).removesuffix("; export the model again")
    return ", ".join(names) if names else "none: chat needs one"
