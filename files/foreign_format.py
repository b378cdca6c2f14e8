"""Folders of other tools, named as what they are: adapters, several GGUF files, checkpoints."""

from pathlib import Path

from .gguf_files import WEIGHTS, gguf_file, several
from .json_fields import JSONFields
from .json_file import read_object

ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model"


def foreign_format(folder: Path) -> str | None:
    """Return what a folder holds instead of a checkpoint, and what to do; None where it may be a checkpoint.

    The text continues "FOLDER ...".
    """
    adapter = _adapter(folder)
    if adapter is not None:
        return adapter
    if (found := several(folder)) is not None:
        return found
    return None


def is_checkpoint(folder: Path) -> bool:
    """Return True for a folder in Hugging Face layout with weights in safetensors, or with a GGUF file."""
    if gguf_file(folder) is not None:
        return True
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _adapter(folder: Path) -> str | None:
    if not (folder / ADAPTER).is_file() or any(_weights(folder)):
        return None
    base = JSONFields(_read(folder / ADAPTER), "").get("base_model_name_or_path")
    of = f" of {base[:200]}" if isinstance(base, str) and base else ""
    return (
        f"is a PEFT adapter{of} ({ADAPTER}), not a whole model; merge it into its base model "
        "(peft: merge_and_unload, then save_pretrained), and export the result"
    )


def _weights(folder: Path) -> list[Path]:
    found = (path for pattern in WEIGHTS for path in folder.glob(pattern))
    return [path for path in found if not path.name.startswith(ADAPTER_WEIGHTS)]


def _read(path: Path) -> dict[str, object]:
    try:
        return read_object(path)
    except ValueError:  # whoever reads the file for its own sake says what is wrong
        return {}
