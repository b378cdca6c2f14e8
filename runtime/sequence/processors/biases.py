"""Biases of tokens and of sequences of tokens (``sequence_bias``, ``logit_bias``, ``bad_words_ids``)."""

from collections.abc import Iterable

import numpy as np

from .base import Floats, Tokens


class SequenceBias:
    """Adds a bias to the last token of each sequence of ids, where the tokens before it are the end of the text."""

    def __init__(self, biases: Iterable[tuple[tuple[int, ...], float]]) -> None:
        by_length: dict[int, list[tuple[tuple[int, ...], float]]] = {}
        for ids, bias in dict(biases).items():  # the last bias of a sequence counts
            by_length.setdefault(len(ids) - 1, []).append((ids, bias))
        self._groups = [
            (
                length,
                np.array([ids[:-1] for ids, _ in group], dtype=np.int64).reshape(len(group), length),
                np.array([ids[-1] for ids, _ in group], dtype=np.int64),
                np.array([bias for _, bias in group], dtype=np.float32),
            )
            for length, group in by_length.items()
        ]

    def __call__(self, tokens: Tokens, logits: Floats) -> Floats:
        for length, prefixes, last, biases in self._groups:
            if length > tokens.size:
                continue
            matching = (prefixes == tokens[tokens.size - length :]).all(axis=1)
            np.add.at(logits, last[matching], biases[matching])
        return logits


def bad_words(sequences: Iterable[tuple[int, ...]], end_tokens: frozenset[int]) -> SequenceBias:
    """Return a processor that excludes sequences of ids; an end token alone is not excluded, as in transformers."""
    return SequenceBias((ids, -np.inf) for ids in sequences if len(ids) > 1 or end_tokens.isdisjoint(ids))
