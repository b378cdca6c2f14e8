"""Measured figures, one JSON object a line: {section, name, case, round, at, ...figures}.

Recorded figures are not measured again, so that an interrupted run continues.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """The identity of a record: ``case`` distinguishes the processes that measure one variant in one section."""

    section: str
    name: str
    case: str
    round: int


class Records:
    """The records of a file; ``add`` appends a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.all: list[Record] = [json.loads(line) for line in lines]

    def has(self, key: Key) -> bool:
        return any(_key(record) == key for record in self.all)

    def add(self, key: Key, figures: Record) -> None:
        record = {**vars(key), "at": time.strftime("%Y-%m-%d %H:%M:%S"), **figures}
        self.all.append(record)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")

    def forget(self, sections: Iterable[str], names: Iterable[str] = ()) -> None:
        """Drop the records of the sections; only those of the named variants, if any are named."""
        chosen, named = set(sections), set(names)
        kept = [r for r in self.all if r["section"] not in chosen or (named and r["name"] not in named)]
        if len(kept) < len(self.all):
            self.all = kept
            self.path.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")

    def of(self, section: str, name: str | None = None, case: str | None = None) -> list[Record]:
        """Return the records of a section, a variant and a case, in the order of the rounds."""
        found = [
            record
            for record in self.all
            if record["section"] == section
            and (name is None or record["name"] == name)
            and (case is None or record["case"] == case)
        ]
        return sorted(found, key=lambda record: record["round"])

    def names(self, section: str) -> list[str]:
        """Return the variants of a section, in the order of their first records."""
        return list(dict.fromkeys(record["name"] for record in self.all if record["section"] == section))


def _key(record: Record) -> Key:
    return Key(record["section"], record["name"], record["case"], record["round"])
