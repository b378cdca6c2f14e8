"""The pages of the documentation, and the code blocks in them.

A block runs in the tests unless a comment on the line before it gives the reason: ``<!-- not run: needs CUDA -->``.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDE = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", *GUIDE]
EVERY_PAGE = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"))]

ADDRESS = "http://127.0.0.1:8000"
"""Where the server of the pages is; the tests put that of their own in its place."""

_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+?) -->\n)?```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced code block; ``line`` is the number of its first line of code."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None


def name_of(page: Path) -> str:
    """Return the path of a page in the repository, as the name of a test."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return the blocks of a page in these languages, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, match.start("text")) + 1, match["language"], match["text"], match["reason"])
        for match in _FENCE.finditer(text)
        if match["language"] in languages
    ]


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
