"""The code that a checkpoint brings along, which ``auto_map`` in its config.json names.

It may compute something else than transformers' own class, and intaglio does not run it. Embedding models on Qwen2
usually attend to later tokens by it.
"""

from typing import Any

from ...errors import CheckpointError, UnsupportedError
from ...files.json_fields import MAX_SHOWN, shown
from .options import ReadOptions

TEXT_CLASSES = ("AutoTokenizer", "AutoProcessor", "AutoFeatureExtractor", "AutoImageProcessor", "AutoVideoProcessor")
"""The entries that do not compute the model."""

MOST_NAMED = 8
"""Entries that messages name."""


def custom_code(auto_map: Any, where: str) -> str | None:
    """Return the model's entries of ``auto_map`` as text; None where it names no code for the model.

    Raises:
        CheckpointError: ``auto_map`` is not an object.
    """
    if not auto_map:
        return None
    if not isinstance(auto_map, dict):
        raise CheckpointError(f"{where}: auto_map is {shown(auto_map)}, expected an object; mend config.json")
    named = [f"{key}: {value}" for key, value in auto_map.items() if value and key not in TEXT_CLASSES]
    return ", ".join(text[:MAX_SHOWN] for text in named[:MOST_NAMED]) or None


def check_custom_code(code: str | None, options: ReadOptions, where: str) -> str | None:
    """Check that the caller says what the checkpoint's own code computes; return that as a sentence, or None.

    Raises:
        UnsupportedError: there is such code, and no option says what it computes.
    """
    if code is None:
        return None
    if options.attention is not None:
        return f"the checkpoint's own code ({code}) is not run: attention is {options.attention}, as --attention says"
    if options.ignore_auto_map:
        return f"the checkpoint's own code ({code}) is not run: it changes nothing, as --ignore-auto-map says"
    reason = (
        f"auto_map names code of the checkpoint's own ({code}), which may compute something else than transformers' "
        "class and is not run; say what it does: --attention bidirectional if tokens attend to later ones, as in most "
        "embedding models, or --ignore-auto-map if it changes nothing"
    )
    if options.describe:
        return reason
    raise UnsupportedError(f"{where}: {reason}")
