"""Folders of other tools, named as what they are: adapters, several GGUF files, checkpoints."""

import shlex
from pathlib import Path

from .gguf_files import WEIGHTS, gguf_file, several
from .json_fields import JSONFields
from .json_file import read_object

ADAPTER = "adapter_config.json"
ADAPTER_FILE = "adapter_model.safetensors"
MLX_ADAPTER_FILE = "adapters.safetensors"
"""The weights of an adapter of mlx-lm, whose config has the same name as PEFT's."""
ADAPTER_WEIGHTS = ("adapter_model", "adapters.")
OF_TRAINING = frozenset({"training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt"})
"""What transformers' Trainer saves beside weights."""
LONGEST_NAME = 200


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
    values = _read(folder / ADAPTER)
    if "fine_tune_type" in values and "peft_type" not in values:
        return (
            f"is an adapter of mlx-lm ({ADAPTER}), not a whole model, and is not read; fuse it with its base "
            "(`mlx_lm.fuse`), and export the result"
        )
    base = JSONFields(values, "").get("base_model_name_or_path")
    named = isinstance(base, str) and 0 < len(base) <= LONGEST_NAME and base.isprintable()
    of = f" of {base}" if named else ""
    return f"is a PEFT adapter{of} ({ADAPTER}), not a whole model; {_advice(folder, base if named else None)}"


def _advice(folder: Path, base: str | None) -> str:
    """Return how to export an adapter's base with the adapter in it."""
    command = shlex.join(["intaglio", "export", base or "BASE", "OUT", "--adapter", str(folder)])
    if base is None:
        return f"export the base that it was trained on with it: `{command}`"
    # Only a name of the hub means the same elsewhere than where the adapter was trained.
    if not _is_folder(base) and (base.startswith((".", "/", "~", "\\")) or base.count("/") != 1):
        command = shlex.join(["intaglio", "export", "BASE", "OUT", "--adapter", str(folder)])
        return f"export its base, the folder {base}, which is not on this machine, with it: `{command}`"
    return f"export the base with it: `{command}`"


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def _weights(folder: Path) -> list[Path]:
    found = (path for pattern in WEIGHTS for path in folder.glob(pattern))
    return [path for path in found if not path.name.startswith(ADAPTER_WEIGHTS) and path.name not in OF_TRAINING]


def _read(path: Path) -> dict[str, object]:
    try:
        return read_object(path)
    except ValueError:  # whoever reads the file for its own sake says what is wrong
        return {}
