"""A store of tensors with adapters merged into them, and the config of the model that they make."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...errors import CheckpointError
from ...files.json_file import read_object
from ..family import CLASS_SUFFIXES, Family
from ..storage.store import TensorStore
from ..weight_source import TensorInfo
from .given import AdapterFolder
from .merge import EMBEDDING, Base, Merge, merge

CLASSES = ("text-classification", "token-classification")


class Merged:
    """The tensors of a base, those that adapters change computed as they are read.

    ``config`` has the keys of config.json that they change, and ``notes`` say how they were read.
    """

    def __init__(
        self,
        base: Base,
        adapters: Sequence[AdapterFolder],
        values: Mapping[str, Any],
        family: Family,
        labels: int,
    ) -> None:
        """Read the headers of the adapters.

        Args:
            values: the base's config.json.
            labels: the number of labels that it has.

        Raises:
            CheckpointError, UnsupportedError: as ``merge``.
        """
        found = merge(base, adapters)
        self.config, note = changed_config(values, base, found, family, labels)
        self.notes = (*found.notes, *([] if note is None else [note]))
        self.store: TensorStore = base.store
        self.changes = found.changes
        kept = {name: info for name, info in base.store.tensors.items() if name not in found.dropped}
        self.tensors: Mapping[str, TensorInfo] = kept | {name: one.info for name, one in found.changes.items()}

    def read(self, name: str, rows: range | None = None, columns: range | None = None) -> Tensor:
        change = self.changes.get(name)
        return self.store.read(name, rows, columns) if change is None else change.read(rows, columns)


def changed_config(
    values: Mapping[str, Any], base: Base, found: Merge, family: Family, labels: int
) -> tuple[dict[str, Any], str | None]:
    """Return the keys of config.json that the adapters change, and a note on labels without names.

    Args:
        values: the base's config.json.
        labels: the number of labels that it has.

    Raises:
        CheckpointError: an adapter's config.json is damaged.
    """
    changed: dict[str, Any] = {}
    note = None
    if found.task != base.task:
        changed["architectures"] = [family.class_prefix + CLASS_SUFFIXES[found.task]]
    if found.tied != base.tied:
        changed["tie_word_embeddings"] = found.tied
    embedding = found.changes.get(base.weight(EMBEDDING))
    if embedding is not None and embedding.info.shape[0] != values.get("vocab_size"):
        changed["vocab_size"] = embedding.info.shape[0]
    head = found.changes.get("score.weight")
    if head is not None and found.task in CLASSES:
        count = head.info.shape[0]
        named = _labels(found, count)
        if named is None and count != labels:
            named = {str(index): f"LABEL_{index}" for index in range(count)}
            note = f"the {count} labels of the adapter have no names: they are LABEL_0 and so on"
        if named is not None:
            changed["id2label"] = named
            changed["label2id"] = {name: int(index) for index, name in named.items()}
            changed |= {"num_labels": count} if "num_labels" in values else {}
    return changed, note


def _labels(found: Merge, count: int) -> dict[str, str] | None:
    """Return the names of the labels in a config.json beside an adapter, as some trainers write it; None without."""
    for parts in found.parts:
        path = parts.adapter.folder / "config.json"
        try:
            named = read_object(path).get("id2label")
        except ValueError as error:
            raise CheckpointError(f"{error}; remove the file, or fetch it again") from None
        if isinstance(named, dict) and set(named) == {str(index) for index in range(count)}:
            return {index: str(name) for index, name in sorted(named.items(), key=lambda item: int(item[0]))}
    return None
