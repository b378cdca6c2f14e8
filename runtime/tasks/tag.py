"""Token classification: a label for every token, or for every entity."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from tokenizers import Encoding

from ...contract import OUTPUTS
from .base import TaskModel
from .classify import label_names
from .padded import encode_texts, one_or_many, run_batches, softmax

OUTSIDE = "O"


@dataclass(frozen=True)
class Tag:
    """A label for the characters ``start`` to ``end`` of the text, which read ``text``."""

    label: str
    score: float
    text: str
    start: int
    end: int


class TokenClassifier(TaskModel):
    """A loaded token-classification artifact."""

    def __call__(
        self, texts: str | Sequence[str], *, aggregate: bool = False, batch_size: int = 16, truncation: bool = False
    ) -> list[list[Tag]]:
        """Tag texts; one list per text, in order.

        Without ``aggregate`` there is one tag per token; offsets leave out the space that a byte-level token begins
        with, and tokens of nothing but space keep it. With ``aggregate`` neighbours of one label become one entity
        (``B-`` begins a new one), and what is labelled ``O`` is left out.

        Raises:
            PromptError: a text without tokens, or longer than the context (unless ``truncation`` cuts it).
            UsageError: batch_size below 1.
        """
        many = one_or_many(texts)
        encodings = encode_texts(many, self.tokenizer, self.session.manifest.model, truncation)
        rows = [encoding.ids for encoding in encodings]
        results = dict(run_batches(self.session, rows, OUTPUTS["token-classification"], batch_size))
        tagged = [
            self._tags(text, encoding, results[index][0])
            for index, (text, encoding) in enumerate(zip(many, encodings, strict=True))
        ]
        return [entities(text, tags) for text, tags in zip(many, tagged, strict=True)] if aggregate else tagged

    def _tags(self, text: str, encoding: Encoding, logits: NDArray[Any]) -> list[Tag]:
        """One tag per token that stands for text; ``logits`` is [S, L] with padding."""
        labels = label_names(self.session.manifest, logits.shape[-1])
        probabilities = softmax(logits[: len(encoding)])
        tags = []
        for row, offsets, special in zip(probabilities, encoding.offsets, encoding.special_tokens_mask, strict=True):
            if not special:
                best = int(row.argmax())
                start, end = without_space(text, *offsets)
                tags.append(Tag(labels[best], float(row[best]), text[start:end], start, end))
        return tags


def entities(text: str, tags: Iterable[Tag]) -> list[Tag]:
    """Join neighbours of one label, as transformers' "simple" aggregation: the score is the tokens' mean.

    Tokens of nothing but space belong to no entity and separate none.
    """
    groups: list[tuple[str, list[Tag]]] = []
    for tag in tags:
        if not tag.text.strip():
            continue
        begins, name = _split(tag.label)
        if groups and not begins and groups[-1][0] == name:
            groups[-1][1].append(tag)
        else:
            groups.append((name, [tag]))
    found = []
    for name, members in groups:
        if name != OUTSIDE:
            start, end = members[0].start, max(member.end for member in members)
            mean = sum(member.score for member in members) / len(members)
            found.append(Tag(name, mean, text[start:end], start, end))
    return found


def without_space(text: str, start: int, end: int) -> tuple[int, int]:
    """The range without white space at its ends, unless there is nothing else in it."""
    piece = text[start:end]
    if not piece.strip():
        return start, end
    return start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())


def _split(label: str) -> tuple[bool, str]:
    """Whether the label begins an entity, and the entity's name: ``B-PER`` is (True, ``PER``)."""
    if label.startswith(("B-", "I-")):
        return label[0] == "B", label[2:]
    return False, label
