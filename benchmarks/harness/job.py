"""The job of one process, given as JSON on its command line."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """``section`` and ``tool`` choose the code; ``settings`` are the section's own; ``prompts`` is prompts.py's file.

    ``capacity`` is the number of positions of the longest sequence, for tools that allocate it on loading;
    ``variables`` belong to the environment of the process.
    """

    section: str
    tool: str
    artifact: str
    checkpoint: str
    prompts: str
    threads: int
    capacity: int
    settings: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        return cls(**json.loads(text))

    def prompt(self, name: str, length: int | None = None) -> list[int]:
        """Return the token ids of a prompt, or the first ``length`` of them.

        Raises:
            SystemExit: the prompt is shorter.
        """
        ids: list[int] = json.loads(Path(self.prompts).read_text())[name]
        if length is not None and len(ids) < length:
            raise SystemExit(f"the prompt {name!r} has {len(ids):,} tokens, the section needs {length:,}")
        return ids[:length]


def varied(ids: list[int], number: int) -> list[int]:
    """Return the prompt with another first token, so that no tool reuses the KV cache of an earlier prompt."""
    return [(ids[0] + 1 + number) % 1000 + 100, *ids[1:]]
