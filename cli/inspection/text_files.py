"""What a folder reads text with: its tokenizer, an embedder's modules and chat templates, or why it has none."""

from pathlib import Path

from ...artifact import Task
from ...errors import ArtifactError
from ...files.embedding import read_embedding
from ...files.regular_file import is_there
from ...files.tokenizer_file import FILE, VOCABULARY, missing_tokenizer


def text_facts(folder: Path, task: Task) -> dict[str, str]:
    """Return one line on the tokenizer and one on an embedder's modules, or on a language model's chat templates.

    Only the templates and embedding.json are read; a file that is something else is named in the line.
    """
    facts = {"tokenizer": _tokenizer(folder)}
    if task == "feature-extraction":
        facts["embedding"] = _embedding(folder)
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


def _embedding(folder: Path) -> str:
    try:
        found = read_embedding(folder)
        if found is None:
            return "modules.json of sentence-transformers" if is_there(folder / "modules.json") else "last, normalize"
    except ValueError as error:
        return str(error)
    prompts = [name for name, text in found.prompts.items() if text]
    return ", ".join([*found.pooling, *(step.kind for step in found.steps), *(f"prompt {name!r}" for name in prompts)])


def _templates(folder: Path) -> str:
    from ...files.chat.template import read_chat_format

    try:
        names = list(read_chat_format(folder).templates)
    except ArtifactError as error:
        return str(error).removesuffix("; export the model again")
    return ", ".join(names) if names else "none: chat needs one"
