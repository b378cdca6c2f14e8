"""A multiple choice of any text: which of four sentences follows two others.

The true one is followed, in a fixed order, by sentences of the same article; so a choice needs more than the topic.
"""

import random
import re
from itertools import pairwise

Item = dict[str, object]

SENTENCE = re.compile(r"(?<= [.!?]) (?=[A-Z])")
HEADING = re.compile(r"^ ?= [^=].* = ?$")
SHORTEST, LONGEST = 40, 240  # characters of a sentence
CHOICES = 4


def next_sentences(text: str, count: int, seed: int = 0) -> list[Item]:
    """Return ``count`` items: a context, four choices that begin with a space, and the index of the right one.

    Raises:
        ValueError: the text has fewer.
    """
    generator = random.Random(seed)
    found: list[Item] = []
    for article in _articles(text):
        sentences = [SENTENCE.split(line.strip()) for line in article]
        every = [one for line in sentences for one in line if SHORTEST <= len(one) <= LONGEST]
        for line in sentences:
            for (first, second), third in zip(pairwise(line), line[2:], strict=False):
                others = [one for one in every if one not in line]
                if not all(SHORTEST <= len(one) <= LONGEST for one in (first, second, third)) or len(others) < CHOICES:
                    continue
                choices = [third, *generator.sample(others, CHOICES - 1)]
                order = generator.sample(range(CHOICES), CHOICES)
                found.append(
                    {
                        "context": f"{first} {second}",
                        "choices": [f" {choices[place]}" for place in order],
                        "label": order.index(0),
                    }
                )
    if len(found) < count:
        raise ValueError(f"the text has {len(found)} sentences to choose, and {count} are wanted")
    return generator.sample(found, count)


def _articles(text: str) -> list[list[str]]:
    """Return the lines of each article, without headings; an article begins at a heading of the first level."""
    articles: list[list[str]] = [[]]
    for line in text.splitlines():
        if HEADING.match(line) and not line.strip().startswith("= ="):
            articles.append([])
        elif line.strip() and not line.strip().startswith("="):
            articles[-1].append(line)
    return articles
