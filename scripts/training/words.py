"""The words that a small model can learn to write.

Thousands of names and rare words occur once or twice in the text, as several tokens each. From so many of them a model
learns to begin words that it cannot finish: `a prizughism`. In the last stage, tokens of rare words are therefore
inputs, but have no loss.
"""

from collections import Counter
from collections.abc import Iterator, Sequence, Set

import torch
from torch import Tensor

from .vocabulary import Vocabulary

FEWEST = 8

Word = tuple[int, ...]


def spans(vocabulary: Vocabulary, ids: Sequence[int]) -> Iterator[tuple[int, Word]]:
    """Yield the beginning and the tokens of each word: a token, and the tokens of letters alone that follow letters."""
    texts = [vocabulary.tokenizer.decode([token]) for token in range(len(vocabulary))]
    bare, letters = [text.isalpha() for text in texts], [text[-1:].isalpha() for text in texts]
    begin = 0
    for place in range(1, len(ids) + 1):
        if place == len(ids) or not (bare[ids[place]] and letters[ids[place - 1]]):
            yield begin, tuple(ids[begin:place])
            begin = place


def familiar(vocabulary: Vocabulary, ids: Tensor) -> Set[Word]:
    """Return the words of several tokens that occur at least ``FEWEST`` times in the text."""
    counts = Counter(word for _, word in spans(vocabulary, ids.tolist()) if len(word) > 1)
    return {word for word, count in counts.items() if count >= FEWEST}


def unfamiliar(vocabulary: Vocabulary, ids: Tensor, known: Set[Word]) -> Tensor:
    """Return a mask of the tokens of words of several tokens that are not known; bool [N]."""
    found = torch.zeros(len(ids), dtype=torch.bool)
    for begin, word in spans(vocabulary, ids.tolist()):
        if len(word) > 1 and word not in known:
            found[begin : begin + len(word)] = True
    return found
