"""Entities from the labels of tokens: adjacent tokens of one label, or whole words, joined."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

OUTSIDE = "O"

Aggregation = Literal["none", "simple", "first", "average", "max"]


@dataclass(frozen=True)
class Tag:
    """A label for the characters ``text`` from ``start`` to ``end`` of the input."""

    label: str
    score: float
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class TokenScores:
    """The probability of each label [L] for the characters from ``start`` to ``end``; ``unknown`` is the unk token."""

    scores: NDArray[Any]
    start: int
    end: int
    unknown: bool = False


def entities(text: str, tags: Iterable[Tag]) -> list[Tag]:
    """Join adjacent tags of one label: the score is the tokens' mean.

    As the aggregation "simple", but tokens of white space are in no entity and do not separate entities.
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


def aggregated(text: str, tokens: Sequence[TokenScores], labels: Sequence[str], strategy: Aggregation) -> list[Tag]:
    """Join tokens to entities as transformers' TokenClassificationPipeline does with this aggregation strategy.

    Args:
        strategy: "simple" joins adjacent tokens of one label. The others give all tokens of a word one label before:
            that of the first token, that of the mean of the probabilities, or that of the most certain token.
    """
    words: list[list[TokenScores]] = []
    for token in tokens:
        if strategy != "simple" and words and _continues_word(text, token):
            words[-1].append(token)
        else:
            words.append([token])
    groups: list[list[Tag]] = []
    for word in words:
        tag = _tag_of(word, labels, strategy)
        begins, name = _split(tag.label)
        if groups and not begins and _split(groups[-1][-1].label)[1] == name:
            groups[-1].append(tag)
        else:
            groups.append([tag])
    found = []
    for group in groups:
        name = group[0].label.split("-", 1)[-1]
        if name != OUTSIDE:
            start, end = without_space(text, group[0].start, group[-1].end)
            mean = float(np.mean([tag.score for tag in group]))
            found.append(Tag(name, mean, text[start:end], start, end))
    return found


def _continues_word(text: str, token: TokenScores) -> bool:
    """Return True where no space is before the token or at its beginning, as transformers decides it."""
    return not token.unknown and token.start > 0 and " " not in text[token.start - 1 : token.start + 1]


def _tag_of(word: Sequence[TokenScores], labels: Sequence[str], strategy: Aggregation) -> Tag:
    if strategy == "average":
        scores = np.mean([token.scores for token in word], axis=0)
    elif strategy == "max":
        scores = max(word, key=lambda token: float(token.scores.max())).scores
    else:
        scores = word[0].scores
    best = int(scores.argmax())
    return Tag(labels[best], float(scores[best]), "", word[0].start, word[-1].end)


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
