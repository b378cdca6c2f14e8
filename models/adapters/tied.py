"""A base whose LM head is its embedding, with adapters that change one of both or both.

peft changes the module that an adapter names, and not the one that shares its matrix; it warns that a merge in place
changes both. What the trained model computes is exported: the two are untied where they differ.
"""

from collections.abc import Sequence

import torch

from ...errors import CheckpointError, UnsupportedError
from ..storage.store import TensorStore
from ..weight_source import LM_HEAD, row_ranges
from .change import Change, OfBase, WithRows
from .parts import Parts
from .terms import LowRank, Term

COMPARED_BYTES = 1 << 24


def settle_tied(
    store: TensorStore, embedding: str, changes: dict[str, Change], adapters: Sequence[Parts]
) -> tuple[bool, frozenset[str], str | None]:
    """Return whether the two stay tied, the tensors that go, and a note; completes ``changes`` where they do not.

    Args:
        embedding: the name of the embedding's weight.

    Raises:
        CheckpointError: they have different numbers of rows.
        UnsupportedError: rows of one change, and the other as a whole.
    """
    ours, head = changes.get(embedding), changes.get(LM_HEAD)
    copy = frozenset({LM_HEAD} & store.tensors.keys())
    if ours is None and head is None:
        return True, frozenset(), None
    if ours is not None and head is None and (_both(ours, adapters) or all(one.config.tied for one in adapters)):
        return True, copy, None
    if ours is not None and head is not None and _same(ours, head):
        del changes[LM_HEAD]
        return True, copy, None
    if head is not None and ours is not None and isinstance(ours.origin, WithRows):
        raise UnsupportedError(
            f"{' and '.join(head.by)}: rows of the embedding, which is the LM head too, and a change of the LM head "
            "are not merged together; merge the adapter with peft (merge_and_unload), save the model, and export that"
        )
    if head is None:
        assert ours is not None
        head = changes[LM_HEAD] = Change(LM_HEAD, store.tensors[embedding], OfBase(store, embedding), by=ours.by)
    vocabulary = (ours.info if ours is not None else store.tensors[embedding]).shape
    if head.info.shape != vocabulary:
        raise CheckpointError(
            f"{' and '.join(head.by)}: the embedding has the shape {vocabulary} and the LM head {head.info.shape}; the "
            "adapter is not whole: fetch it again"
        )
    which = "the embedding and the LM head" if ours is not None and head.computes else "one of both"
    note = (
        f"the LM head is the embedding in the base, and with the adapter {' and '.join(head.by)} no more: it changes "
        f"{which}, and both are stored"
    )
    return False, frozenset(), note


def _both(embedding: Change, adapters: Sequence[Parts]) -> bool:
    """Return true if peft changes the head with the embedding: rows of tokens, and a resized vocabulary."""
    if embedding.computes:
        return False
    saved = {name.rsplit(".", 1)[-1] for parts in adapters for name in parts.config.modules_to_save}
    return isinstance(embedding.origin, WithRows) or "embed_tokens" not in saved


def _equal(one: Term, other: Term) -> bool:
    """Return true for two products of the same numbers, as peft stores them with ``ensure_weight_tying``."""
    if not (isinstance(one, LowRank) and isinstance(other, LowRank)) or (one.scale, one.shape) != (
        other.scale,
        other.shape,
    ):
        return False
    factors = ((one.left, other.left), (one.right, other.right))
    return all(torch.equal(mine.read(), theirs.read()) for mine, theirs in factors)


def _same(one: Change, other: Change) -> bool:
    """Return true if two changes give the same matrix: from equal numbers, by equal products."""
    if one.magnitude or one.scale or other.magnitude or other.scale:
        return False
    if one.info.shape != other.info.shape or len(one.terms) != len(other.terms):
        return False
    if not all(_equal(*pair) for pair in zip(one.terms, other.terms, strict=True)):
        return False
    if one.origin == other.origin:
        return True
    return all(
        torch.equal(one.origin.read(rows).double(), other.origin.read(rows).double())
        for rows in (range(start, stop) for start, stop in row_ranges(one.info, COMPARED_BYTES))
    )
