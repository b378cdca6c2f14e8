"""Adapters (LoRA) beside full weights, which transformers would apply to them."""

import shlex
from pathlib import Path

from ...errors import UnsupportedError
from ...files.foreign_format import ADAPTER
from .options import ReadOptions

FILES = (ADAPTER, "adapter_model.safetensors", "adapter_model.bin")


def adapter_files(folder: Path) -> str | None:
    """Return the names of an adapter's files in a folder as text; None where there are none."""
    return ", ".join(name for name in FILES if (folder / name).is_file()) or None


def check_adapter(files: str | None, folder: Path, options: ReadOptions) -> str | None:
    """Check that no adapter is ignored unsaid; return what is left out as a sentence, or None.

    Args:
        files: the adapter's, as ``adapter_files`` returns them.

    Raises:
        UnsupportedError: there is one beside the weights, and no option says to ignore it.
    """
    if files is None:
        return None
    if options.ignore_adapter:
        return f"an adapter (LoRA) beside the weights ({files}) is left out, as --ignore-adapter says"
    reason = (
        f"an adapter (LoRA) lies beside the full weights ({files}), and transformers would apply it; give --adapter "
        f"{shlex.quote(str(folder))} to merge it, or --ignore-adapter to read the full weights alone"
    )
    if options.describe:
        return reason
    raise UnsupportedError(f"{folder}: {reason}")
