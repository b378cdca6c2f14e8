"""Folders of other tools, named as what they are: adapters, GGUF files, checkpoints."""

from pathlib import Path

from .json_fields import JSONFields
from .json_file import read_object

GGUF = ".gguf"
ADAPTER = "adapter_config.json"
WEIGHTS = ("*.safetensors", "*.bin", "*.pt")
ADAPTER_WEIGHTS = "adapter_model"


def foreign_format(folder: Path) -> str | None:
    """Return what a folder holds instead of a checkpoint, and what to do; None where it may be a checkpoint.

    The text continues "FOLDER ...".
    """
    adapter = _adapter(folder)
    if adapter is not None:
        return adapter
    if not any(_weights(folder)) and (found := sorted(path.name for path in folder.glob(f"*{GGUF}"))):
        return gguf(f"holds GGUF weights ({found[0]})")
    return None


def gguf(what: str) -> str:
    """Return the refusal of GGUF weights."""
    return f"{what}, a format of llama.cpp that is not read; export the checkpoint that they were made from"


def is_checkpoint(folder: Path) -> bool:
    """Return True for a folder in Hugging Face layout with weights in safetensors."""
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
