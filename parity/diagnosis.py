"""Why a stored weight is not what it should be, in words."""

from dataclasses import dataclass

from ..artifact import Manifest, TensorEntry
from ..models.checkpoint import Checkpoint
from .comparison import Comparison
from .expected import Expected
from .layouts import Weight


@dataclass(frozen=True)
class Suspect:
    """A weight that cannot have come from its source as the manifest says; ``suspicion`` is what gave it away."""

    name: str
    entry: TensorEntry
    weight: Weight
    expected: Expected
    found: Comparison
    suspicion: str


def explain(suspect: Suspect, checkpoint: Checkpoint, manifest: Manifest) -> str:
    return suspect.suspicion
