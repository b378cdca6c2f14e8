"""The outcomes of the cases, kept in a file: a later run adds to it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from intaglio.tests.inputs.case import Case
from intaglio.tests.inputs.outcome import Outcome

Key = tuple[str, str, str, str]
"""Format, variant, the library that made it, and family."""


@dataclass
class Record:
    """Outcomes by case and family."""

    outcomes: dict[Key, Outcome] = field(default_factory=dict)

    @staticmethod
    def key(case: Case, family: str) -> Key:
        return (case.format, case.variant, case.made_by, family)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        values = [[list(key), asdict(outcome)] for key, outcome in self.outcomes.items()]
        path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def read_record(path: Path) -> Record:
    """Return the record that a file holds; an empty one where there is no such file."""
    found = Record()
    if path.exists():
        for (format, variant, made_by, family), values in json.loads(path.read_text(encoding="utf-8")):
            found.outcomes[format, variant, made_by, family] = Outcome(**values)
    return found
