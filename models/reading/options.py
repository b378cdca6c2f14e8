"""What a caller says about a checkpoint whose files leave it open."""

from dataclasses import dataclass

from ...artifact import Attention
from ..adapters.given import AdapterFolder


@dataclass(frozen=True)
class ReadOptions:
    """The caller's answers to what a checkpoint's files leave open.

    Args:
        attention: which tokens a token attends to, as the checkpoint's own code has it; None as config.json says.
        ignore_auto_map: the checkpoint's own code computes what transformers' class computes.
        ignore_adapter: read the full weights alone, where the folder holds an adapter too.
        adapters: adapters to merge into the weights, in this order.
        describe: read for a description: note what would have to be answered first, and refuse nothing of it.
    """

    attention: Attention | None = None
    ignore_auto_map: bool = False
    ignore_adapter: bool = False
    describe: bool = False
    adapters: tuple[AdapterFolder, ...] = ()
