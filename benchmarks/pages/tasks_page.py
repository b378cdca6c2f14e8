"""The generated part of tasks.md: the share of right answers of each artifact."""

from pathlib import Path

from ..harness.records import Record, Records
from ..harness.tasks.evaluation import FUNCTIONS, NEXT_SENTENCE
from .generated import fill
from .numbers import markdown
from .runtime_page import processor

SECTION, CLASSIFIED = "tasks", "classified"


def body(records: Records, threads: int) -> str:
    """Return the tables."""
    text = [f"- {processor()}, {threads} threads"]
    generating = records.of(SECTION)
    if generating:
        head = ["artifact", "text", "choices", "next sentence", "functions, pass@1"]
        rows = [
            [one["name"], one["case"], f"{one['choices']:,}", _share(one, NEXT_SENTENCE), _share(one, FUNCTIONS)]
            for one in generating
        ]
        text.append(markdown(head, rows, left=2))
    classifying = records.of(CLASSIFIED)
    if classifying:
        rows = [[one["name"], one["case"], f"{one['sentences']:,}", _share(one, "accuracy")] for one in classifying]
        text.append(markdown(["classifier", "sentences", "number", "accuracy"], rows, left=2))
    return "\n\n".join(text)


def _share(record: Record, name: str) -> str:
    """Return a share with its standard error, in percent."""
    return f"{100 * record[name]:.1f} ± {100 * record[f'{name} error']:.1f} %"


def write(folder: Path, text: str) -> None:
    """Write tasks.md."""
    fill(folder / "tasks.md", "Tasks", "tasks.py", text)
