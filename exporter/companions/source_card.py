"""The model card of a checkpoint: what its README.md declares of licence and languages, in a YAML front matter."""

import re
from pathlib import Path
from typing import Any

from ...artifact import SourceCard
from ...files.library_errors import library_errors
from ...files.regular_file import is_there, read_regular
from ...models.checkpoint import CARD, LICENSES

MAX_BYTES = 1 << 20
MAX_TEXT = 200
MAX_LANGUAGES = 50
IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9._-]{0,60}")
LANGUAGE = re.compile(r"[a-z]{2,8}(-[A-Za-z0-9]{2,8})*")


def read_source_card(folder: Path) -> SourceCard | None:
    """Read what a checkpoint's README.md declares; None if that is nothing.

    A card that cannot be read, and values that the hub's cards do not have, count as not declared: a card changes
    nothing of the model. A file with the terms (LICENSE) is linked where the card links to none.
    """
    data = _front_matter(folder / CARD)
    link = _text(data.get("license_link"))
    card = SourceCard(
        license=_match(IDENTIFIER, data.get("license")),
        license_name=_text(data.get("license_name")),
        license_link=link or next((name for name in LICENSES[:3] if (folder / name).is_file()), None),
        languages=_languages(data.get("language")),
    )
    return card if any((card.license, card.license_name, card.license_link, card.languages)) else None


def _front_matter(path: Path) -> dict[str, Any]:
    """Return the front matter of a Markdown file; an empty one where there is none that can be read."""
    from huggingface_hub import ModelCard

    try:
        if not is_there(path):
            return {}
        text = read_regular(path, MAX_BYTES).decode("utf-8")
        if not text.lstrip().startswith("---"):
            return {}
        with library_errors(ValueError):
            return vars(ModelCard(text, ignore_metadata_errors=True).data)
    except ValueError:
        return {}


def _text(value: Any) -> str | None:
    """Return a short text of one line."""
    return value if isinstance(value, str) and 0 < len(value) <= MAX_TEXT and value.isprintable() else None


def _match(pattern: re.Pattern[str], value: Any) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def _languages(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(found for one in values if (found := _match(LANGUAGE, one))))[:MAX_LANGUAGES]
