"""Details of a report: the worst tokens, the divergence by position, pairs of logits."""

import numpy as np

from ...runtime.text.tokenizer import Tokenizer
from ..report.result import WorstToken
from ..report.tally import Tally
from .case import Case

CONTEXT = 24
"""Tokens shown before each of the worst."""
PAIRS = 2000
SEED = 20_240_607


def worst_tokens(tally: Tally, case: Case, tokenizer: Tokenizer | None) -> tuple[WorstToken, ...]:
    """Return the positions with the largest divergence, as text."""

    def text(tokens: list[int]) -> str:
        return tokenizer.decode(tokens) if tokenizer is not None else " ".join(map(str, tokens))

    found = []
    for flip in tally.worst:
        tokens = case.passages[flip.passage].tokens
        found.append(
            WorstToken(
                case=case.name,
                position=flip.position,
                before=text(tokens[max(0, flip.position + 1 - CONTEXT) : flip.position + 1].tolist()),
                wanted=text([flip.wanted]),
                got=text([flip.got]),
                wanted_probability=flip.wanted_probability,
                got_probability=flip.got_probability,
                kl=flip.kl,
            )
        )
    return tuple(found)


def by_position(tally: Tally, case: Case) -> tuple[tuple[float, ...], ...]:
    """Return the divergence at each position, passage by passage, to four digits; nothing where no pass succeeded."""
    if not tally.kl:
        return ()
    values = np.concatenate(tally.kl)
    ends = np.cumsum([passage.tokens.size for passage in case.passages])
    return tuple(tuple(float(f"{kl:.4g}") for kl in part) for part in np.split(values, ends[:-1]))


def pairs(tally: Tally) -> tuple[tuple[float, float], ...]:
    """Return pairs of the source's and the artifact's logits, at most ``PAIRS`` of those that the tally kept."""
    if not tally.pairs:
        return ()
    every = np.concatenate(tally.pairs)
    if len(every) > PAIRS:
        every = np.random.default_rng(SEED).permutation(every)[:PAIRS]
    return tuple((float(f"{a:.9g}"), float(f"{b:.9g}")) for a, b in np.nan_to_num(every, posinf=1e30, neginf=-1e30))
