"""The prompts of a load: random words of given lengths, or the lines of a file."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...errors import UsageError

Messages = list[dict[str, Any]]

WORDS = (
    "time year people way day man thing woman life child world school state family student group country problem hand"
    " part place case week company system program question work government number night point home water room mother"
    " area money story fact month lot right study book eye job word business issue side kind head house service friend"
    " father power hour game line end member law car city community name president team minute idea body information"
    " back parent face others level office door health person art war history party result change morning reason"
    " research girl guy moment air teacher force education"
).split()
"""Words that most tokenizers have as one token each."""


class Prompts(Protocol):
    """The messages of each request, always the same for a number."""

    def messages(self, number: int) -> Messages: ...


@dataclass(frozen=True)
class RandomPrompts:
    """Random words, after a system message of ``prefix`` words that all requests share."""

    words: int
    prefix: int = 0
    seed: int = 0

    def messages(self, number: int) -> Messages:
        """Return the messages of a request."""
        user = {"role": "user", "content": random_words(self.words, f"{self.seed} {number}")}
        if not self.prefix:
            return [user]
        return [{"role": "system", "content": random_words(self.prefix, f"{self.seed} prefix")}, user]


@dataclass(frozen=True)
class FilePrompts:
    """The conversations of a file, one after the other, and from the beginning after the last."""

    conversations: Sequence[Messages]

    def messages(self, number: int) -> Messages:
        """Return the messages of a request."""
        return self.conversations[number % len(self.conversations)]


def random_words(count: int, seed: str) -> str:
    """Return random words, the same for the same seed."""
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def read_prompts(path: Path, seed: int) -> FilePrompts:
    """Read a file of prompts, in random order: lines of text, or of JSON with ``messages`` or ``prompt``.

    Raises:
        UsageError: there is no such file, no prompt in it, or a line of JSON with neither.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the prompts cannot be read: {error}; give a text file in UTF-8") from None
    if not lines:
        raise UsageError(f"{path}: there is no prompt; write one a line")
    conversations = [_conversation(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]
    random.Random(seed).shuffle(conversations)
    return FilePrompts(conversations)


def _conversation(line: str, where: str) -> Messages:
    if not line.startswith("{"):
        return [{"role": "user", "content": line}]
    try:
        found = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{where}: the line is not JSON: {error}") from None
    if isinstance(found.get("messages"), list) and found["messages"]:
        return list(found["messages"])
    if isinstance(found.get("prompt"), str):
        return [{"role": "user", "content": found["prompt"]}]
    raise UsageError(f'{where}: there is neither "messages" nor "prompt"; give one of them')
