"""The names of a checkpoint's tensors without what wrappers add to them.

Trainers save the modules that they wrap a model in: ``module.model.embed_tokens.weight``, and ``_orig_mod`` anywhere.
Models for images and text keep their language model under ``model.language_model.``.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...errors import CheckpointError, UnsupportedError

EMBEDDING = "embed_tokens.weight"
TRUNKS = ("model.", "transformer.", "")
"""The prefixes of the trunk's tensors that need no renaming."""
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Modules of torch around another one; they may occur anywhere in a name."""
LANGUAGE_MODEL = "model.language_model."
ADAPTER_PARTS = frozenset({"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "base_layer", "modules_to_save"})


@dataclass(frozen=True)
class Layout:
    """``stored``: the names in the files by the names that are read; ``notes``: what was left out of them."""

    stored: Mapping[str, str]
    notes: tuple[str, ...] = ()


def read_layout(names: Iterable[str], folder: Path) -> Layout:
    """Return the names of a checkpoint's tensors as the families have them.

    A prefix that all names share says nothing. Other names stay as they are.

    Raises:
        UnsupportedError: the tensors are those of an adapter that is not merged.
        CheckpointError: two tensors get the same name.
    """
    stored = {name: name for name in names}
    _refuse_adapter(stored, folder)
    notes = []
    for wrapper in WRAPPERS:
        if any(wrapper in name.split(".") for name in stored):
            stored = _renamed(stored, partial(_without, wrapper), folder)
            notes.append(f"tensor names are read without {wrapper}")
    prefix = _embedding_prefix(stored)
    if prefix is None or prefix in TRUNKS:
        return Layout(stored, tuple(notes))
    shared = _shared_prefix(prefix, stored)
    if shared:
        stored = _renamed(stored, lambda name: name.removeprefix(shared), folder)
        notes.append(f"tensor names are read without the prefix {shared}")
    elif prefix == LANGUAGE_MODEL:
        stored = _renamed(stored, lambda name: name.replace(LANGUAGE_MODEL, "model.", 1), folder)
        notes.append(f"the prefix {LANGUAGE_MODEL} of tensor names is read as model.")
    return Layout(stored, tuple(notes))


def _refuse_adapter(names: Iterable[str], folder: Path) -> None:
    for name in names:
        if not ADAPTER_PARTS.isdisjoint(name.split(".")):
            raise UnsupportedError(
                f"{folder}: tensor {name} belongs to an adapter (LoRA) that is not merged into the weights; merge it "
                "with peft (merge_and_unload), save the model, and give that folder"
            )


def _without(part: str, name: str) -> str:
    return ".".join(one for one in name.split(".") if one != part)


def _embedding_prefix(names: Iterable[str]) -> str | None:
    """Return what precedes the embedding's name; None where there is none, or several."""
    found = [name.removesuffix(EMBEDDING) for name in names if name == EMBEDDING or name.endswith(f".{EMBEDDING}")]
    return found[0] if len(found) == 1 else None


def _shared_prefix(prefix: str, names: Iterable[str]) -> str:
    """Return what precedes the trunk's own part of the embedding's prefix, if all names begin with it; or ""."""
    for trunk in TRUNKS:
        before = prefix.removesuffix(trunk)
        whole = before + trunk == prefix and before.endswith(".")
        if whole and all(name.startswith(before) for name in names):
            return before
    return ""


def _renamed(stored: Mapping[str, str], change: Callable[[str], str], folder: Path) -> dict[str, str]:
    renamed: dict[str, str] = {}
    for name, original in stored.items():
        new = change(name)
        if new in renamed:
            raise CheckpointError(
                f"{folder}: tensors {renamed[new]} and {original} are both {new}; remove the one that does not count"
            )
        renamed[new] = original
    return renamed
