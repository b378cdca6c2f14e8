"""A weight that an edit makes faulty, and the edits that the lists of faults share."""

from dataclasses import dataclass

from ..artifacts import Base
from ..faults.edits import weights as edits
from ..faults.edits.attention import Edit

LAYER = "model.layers.1."


@dataclass(frozen=True)
class FaultyWeight:
    """An edit after which ``tensor`` has a fault that matches ``words``, and no others than ``others`` have one."""

    name: str
    base: Base
    edit: Edit
    tensor: str
    words: str
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


def scaled(name: str, factor: float) -> Edit:
    return edits.rewritten(name, lambda weight: weight * factor)
