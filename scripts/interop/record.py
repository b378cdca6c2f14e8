"""Outcomes that are kept in a file, so that the matrix can be run in parts."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .cases import Case
from .outcome import Outcome


@dataclass
class Record:
    """Outcomes by case and runtime, and each runtime's name with its version."""

    outcomes: dict[Case, dict[str, Outcome]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def add(self, case: Case, runtime: str, outcome: Outcome) -> None:
        self.outcomes.setdefault(case, {})[runtime] = outcome

    def has(self, case: Case, runtime: str) -> bool:
        return runtime in self.outcomes.get(case, {})

    def save(self, path: Path) -> None:
        found = [
            {"case": asdict(case), "runtime": runtime, **asdict(outcome)}
            for case, row in self.outcomes.items()
            for runtime, outcome in row.items()
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"versions": self.versions, "outcomes": found}, indent=1), encoding="utf-8")


def read_record(path: Path) -> Record:
    """Return the record in a file; an empty one where there is none."""
    record = Record()
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        record.versions.update(content["versions"])
        for one in content["outcomes"]:
            record.add(Case(**one["case"]), one["runtime"], Outcome(one["kind"], one["reason"]))
    return record
