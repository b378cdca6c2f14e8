"""What one process is asked to measure."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """``section`` and ``tool`` choose the code, ``settings`` are the section's own, ``prompts`` a file of texts.py.

    ``capacity`` is the most positions that any sequence will have, for tools that must know when they load.
    """

    section: str
    tool: str
    artifact: str
    checkpoint: str
    prompts: str
    threads: int
    capacity: int
    settings: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        return cls(**json.loads(text))

    def prompt(self, name: str, length: int | None = None) -> list[int]:
        """Token ids of a prompt, or its first ``length``.

        Raises:
            SystemExit: the prompt has fewer.
        """
        ids: list[int] = json.loads(Path(self.prompts).read_text())[name]
        if length is not None and len(ids) < length:
            raise SystemExit(f"the prompt {name!r} has {len(ids):,} tokens, {length:,} are asked for")
        return ids[:length]


def varied(ids: list[int], number: int) -> list[int]:
    """The same prompt with another first token: what keeps the beginnings of prompts finds nothing to reuse."""
    return [(ids[0] + 1 + number) % 1000 + 100, *ids[1:]]
