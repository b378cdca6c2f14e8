"""Which words a small model can learn to write.

Thousands of names and rare words stand in the text once or twice, in pieces. Together they make up so much of it that
a model learns to begin words it cannot finish: `a prizughism`. Pieces of words that it has hardly seen are therefore
read and, in the last stage, not learnt to be written.
"""

from collections import Counter
from collections.abc import Iterator, Sequence, Set

import torch
from torch import Tensor

from .vocabulary import Vocabulary

FEWEST = 8

Word = tuple[int, ...]


def spans(vocabulary: Vocabulary, ids: Sequence[int]) -> Iterator[tuple[int, Word]]:
    """Where each word begins and its pieces: a token and the bare letters that follow letters. Other tokens alone."""
    texts = [vocabulary.tokenizer.decode([token]) for token in range(len(vocabulary))]
    bare, letters = [text.isalpha() for text in texts], [text[-1:].isalpha() for text in texts]
    begin = 0
    for place in range(1, len(ids) + 1):
        if place == len(ids) or not (bare[ids[place]] and letters[ids[place - 1]]):
            yield begin, tuple(ids[begin:place])
            begin = place


def familiar(vocabulary: Vocabulary, ids: Tensor) -> Set[Word]:
    """The words in several pieces that stand at least ``FEWEST`` times in the text."""
    counts = Counter(word for _, word in spans(vocabulary, ids.tolist()) if len(word) > 1)
    return {word for word, count in counts.items() if count >= FEWEST}


def unfamiliar(vocabulary: Vocabulary, ids: Tensor, known: Set[Word]) -> Tensor:
    """Whether each token is a piece of a word in several pieces that is not known; [N]."""
    found = torch.zeros(len(ids), dtype=torch.bool)
    for begin, word in spans(vocabulary, ids.tolist()):
        if len(word) > 1 and word not in known:
            found[begin : begin + len(word)] = True
    return found
