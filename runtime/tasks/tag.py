"""Token classification: a label for each token, or for each entity."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from tokenizers import Encoding

from ...contract import OUTPUTS
from ...known_options import refuses_unknown_options
from ..numerics import softmax
from .base import TaskModel
from .classify import label_names
from .padded import encode_texts, one_or_many, run_batches

OUTSIDE = "O"


@dataclass(frozen=True)
class Tag:
    """A label for the characters ``text`` from ``start`` to ``end`` of the input."""

    label: str
    score: float
    text: str
    start: int
    end: int


class TokenClassifier(TaskModel):
    """A loaded token-classification artifact."""

    @refuses_unknown_options
    def __call__(
        self, texts: str | Sequence[str], *, aggregate: bool = False, batch_size: int = 16, truncation: bool = False
    ) -> list[list[Tag]]:
        """Tag texts; one list for each text, in order.

        Without ``aggregate`` there is one tag for each token; offsets leave out the leading space of a byte-level
        token, unless it has only space. With ``aggregate`` adjacent tokens of one label become one entity (``B-``
        begins a new one), and the label ``O`` is left out.

        Raises:
            PromptError: a text without tokens, or longer than the context without ``truncation``.
            UsageError: batch_size below 1.
        """
        inputs = one_or_many(texts)
        encodings = encode_texts(inputs, self.tokenizer, self.session.manifest.model, truncation)
        sequences = [encoding.ids for encoding in encodings]
        results = dict(run_batches(self.session, sequences, OUTPUTS["token-classification"], batch_size))
        tagged = [
            self._tags(text, encoding, results[index][0])
            for index, (text, encoding) in enumerate(zip(inputs, encodings, strict=True))
        ]
        return [entities(text, tags) for text, tags in zip(inputs, tagged, strict=True)] if aggregate else tagged

    def _tags(self, text: str, encoding: Encoding, logits: NDArray[Any]) -> list[Tag]:
        """Return a tag for each token that is not special; ``logits`` is [S, L], with padding."""
        labels = label_names(self.session.manifest, logits.shape[-1])
        probabilities = softmax(logits[: len(encoding)])
        tags = []
        for scores, offsets, special in zip(probabilities, encoding.offsets, encoding.special_tokens_mask, strict=True):
            if not special:
                best = int(scores.argmax())
                start, end = without_space(text, *offsets)
                tags.append(Tag(labels[best], float(scores[best]), text[start:end], start, end))
        return tags


def entities(text: str, tags: Iterable[Tag]) -> list[Tag]:
    """Join adjacent tags of one label, as transformers' "simple" aggregation does: the score is the tokens' mean.

    Tokens of white space are in no entity and do not separate entities.
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
    """Return the range without white space at its ends; unchanged where it has only white space."""
    span = text[start:end]
    if not span.strip():
        return start, end
    return start + len(span) - len(span.lstrip()), end - len(span) + len(span.rstrip())


def _split(label: str) -> tuple[bool, str]:
    """Return True where the label begins an entity, and the entity's name: ``B-PER`` is (True, ``PER``)."""
    if label.startswith(("B-", "I-")):
        return label[0] == "B", label[2:]
    return False, label
