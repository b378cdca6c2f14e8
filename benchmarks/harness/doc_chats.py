"""Chats made of this project's documentation: a heading is asked for, and the text under it is the answer.

No calibration text holds the documentation. It changes with the project, so that figures of different versions are of
different chats.
"""

import re
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
LEAST = 200  # characters of an answer

Chat = list[dict[str, str]]


def chats(folder: Path = DOCS) -> Iterator[Chat]:
    """Yield a chat for each page, with a question and an answer for each heading that has text under it."""
    for page in sorted(folder.glob("*.md")):
        title, *parts = re.split(r"^#+ +", page.read_text(encoding="utf-8").removeprefix("# "), flags=re.MULTILINE)
        title = title.split("\n", 1)[0]
        turns: Chat = []
        for part in parts:
            heading, _, answer = part.partition("\n")
            if len(answer.strip()) >= LEAST:
                turns.append({"role": "user", "content": f"{title}: what can you tell me about “{heading.strip()}”?"})
                turns.append({"role": "assistant", "content": answer.strip()})
        if turns:
            yield turns
