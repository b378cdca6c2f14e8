"""The adapters that a caller gives: folders or hub ids, each with a weight."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...artifact import TEMPLATE_FOLDER, SourceAdapter, combined_digest, sha256_file
from ...errors import UsageError
from ...files.foreign_format import ADAPTER, ADAPTER_FILE, MLX_ADAPTER_FILE
from ...files.tokenizer_file import VOCABULARY
from ...hub import resolve

MOST = 64
"""The most adapters of one export."""

PATTERNS = (
    ADAPTER,
    ADAPTER_FILE,
    MLX_ADAPTER_FILE,
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    f"{TEMPLATE_FOLDER}/*.jinja",
    *VOCABULARY,
)
"""The files of an adapter that a hub download fetches."""


@dataclass(frozen=True)
class Adapter:
    """An adapter to merge.

    Args:
        source: its folder, or a hub id, with ``@`` and a revision behind it or not.
        weight: what its change of the weights is multiplied by.
    """

    source: str | Path
    weight: float = 1.0


@dataclass(frozen=True)
class AdapterFolder:
    """An adapter on this machine: the folder, the name it was asked for by, the hub commit, and the weight."""

    folder: Path
    id: str
    revision: str | None
    weight: float

    @property
    def weights_file(self) -> Path:
        """The file of its tensors."""
        path, mlx = self.folder / ADAPTER_FILE, self.folder / MLX_ADAPTER_FILE
        return mlx if mlx.is_file() and not path.exists() else path

    def record(self) -> SourceAdapter:
        """Return what a manifest says of it, with the digest over its config and its weights."""
        files = (self.folder / ADAPTER, self.weights_file)
        digest = combined_digest({file.name: sha256_file(file) for file in files})
        return SourceAdapter(self.id, self.revision, digest, self.weight)


def parse_adapter(text: str) -> Adapter:
    """Return the adapter that ``DIR`` or ``DIR=WEIGHT`` names; a folder whose own name has the form counts as one."""
    name, equals, number = text.rpartition("=")
    if not equals or not name or Path(text).expanduser().exists():
        return Adapter(text)
    try:
        return Adapter(name, float(number))
    except ValueError:
        return Adapter(text)


def find_adapters(given: Sequence[Adapter | str | Path]) -> tuple[AdapterFolder, ...]:
    """Find the folder of each adapter, on the hub where it is none of this machine.

    Raises:
        UsageError: there are too many, one is given twice, or a weight is not a number other than 0.
        HubError: an adapter cannot be found.
    """
    adapters = [one if isinstance(one, Adapter) else Adapter(one) for one in given]
    if len(adapters) > MOST:
        raise UsageError(f"{len(adapters)} adapters are given; at most {MOST} are merged")
    found: list[AdapterFolder] = []
    for adapter in adapters:
        weight = float(adapter.weight)
        if not math.isfinite(weight) or weight == 0:
            raise UsageError(
                f"the adapter {adapter.source} has the weight {adapter.weight}; give a number other than 0"
            )
        located = resolve(adapter.source, patterns=PATTERNS)
        if any(one.folder.resolve() == located.folder.resolve() for one in found):
            raise UsageError(f"the adapter {adapter.source} is given twice; give it once, with the sum of the weights")
        found.append(AdapterFolder(located.folder, located.id, located.revision, weight))
    return tuple(found)
