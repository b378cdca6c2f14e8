"""The training text: WikiText-2 and SST-2 with the spaces put back where English has them.

Both come as separated words (`wo n't`, `5 @,@ 000`). A model of that text would write that text, so the marks are
undone first. WikiText's `<unk>`, a rare word that was struck out, stays: no loss is ever taken on it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

UNKNOWN = "<unk>"

_TITLE = re.compile(r"^ = ([^=].*[^=]) = $")
_SECTION = re.compile(r"^ (?:= ){2,}([^=].*[^=])(?: =){2,} $")
_GLUE = (
    (re.compile(r" @([-.,])@ "), r"\1"),
    (re.compile(r" (n't|'s|'re|'ve|'ll|'d|'m|')(?=[\s.,;:!?)]|$)"), r"\1"),
    (re.compile(r" ([.,;:!?%)\]])"), r"\1"),
    (re.compile(r"([(\[$£]) "), r"\1"),
    (re.compile(r'" ([^"]*?) "'), r'"\1"'),
    (re.compile(r" – (?=\d)"), "–"),
    (re.compile(r" {2,}"), " "),
)


@dataclass(frozen=True)
class Article:
    """A title, and the text of each section: (its heading, empty for the introduction; its paragraphs)."""

    title: str
    sections: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def text(self) -> str:
        parts = [f"# {self.title}"]
        for heading, paragraphs in self.sections:
            parts += [f"## {heading}"] * bool(heading) + list(paragraphs)
        return "\n".join(parts) + "\n"


@dataclass(frozen=True)
class Review:
    text: str
    positive: bool

    @property
    def as_written(self) -> str:
        """Return the text with a capital and a full stop, which SST-2 lacks."""
        return self.text[:1].upper() + self.text[1:] + "."


def restore(line: str) -> str:
    """Return a line of separated words as ordinary text."""
    for pattern, replacement in _GLUE:
        line = pattern.sub(replacement, line)
    return line.strip()


def articles(path: Path) -> list[Article]:
    """Read the articles of a WikiText file."""
    found: list[tuple[str, list[tuple[str, list[str]]]]] = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        if title := _TITLE.match(line):
            found.append((restore(title[1]), [("", [])]))
        elif section := _SECTION.match(line):
            found[-1][1].append((restore(section[1]), []))
        elif line.strip():
            found[-1][1][-1][1].append(restore(line))
    return [Article(title, tuple((h, tuple(p)) for h, p in sections if p)) for title, sections in found]


def questions(article: Article, sentences: int = 2) -> Iterator[tuple[str, str]]:
    """Yield (question, answer) pairs for the chat template: a section's heading and its beginning."""
    for heading, paragraphs in article.sections:
        answer = " ".join(re.split(r"(?<=[a-z)][.!?]) (?=[A-Z])", paragraphs[0])[:sentences])
        subject = f"{heading} of {article.title}" if heading else article.title
        yield f"Tell me about {subject}.", answer


def reviews(path: Path) -> list[Review]:
    """Read the labelled sentences of an SST-2 file: ``sentence<TAB>label``, 1 for positive."""
    rows = (line.rsplit("\t", 1) for line in path.read_text(encoding="utf-8").split("\n") if line)
    return [Review(restore(sentence), label == "1") for sentence, label in rows]
