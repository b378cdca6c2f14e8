"""The README specifies the artifact and lists the verbs: whole, and under their right names."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from intaglio.artifact import (
    DATA,
    GRAPH,
    MANIFEST,
    PRECISIONS,
    TARGETS,
    TASKS,
    FileEntry,
    Manifest,
    ModelFacts,
    Parity,
    Quantization,
    Source,
    TensorEntry,
)
from intaglio.cli.main import VERBS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SPECIFICATION = README.partition("## The artifact folder")[2].partition("## What is refused")[0]


@pytest.mark.parametrize("kind", [Manifest, ModelFacts, Source, TensorEntry, Quantization, FileEntry, Parity])
def test_every_field_of_the_manifest_is_specified(kind: Any) -> None:
    assert [field.name for field in fields(kind) if f"`{field.name}`" not in SPECIFICATION] == []


@pytest.mark.parametrize("word", [GRAPH, DATA, MANIFEST, *TASKS, *TARGETS, *PRECISIONS])
def test_every_file_and_value_is_specified(word: str) -> None:
    assert f"`{word}`" in SPECIFICATION


def test_every_verb_is_listed_and_no_other() -> None:
    table = README.partition("## The command line")[2].partition("## In Python")[0]
    assert re.findall(r"^\| `intaglio (\w+)", table, re.MULTILINE) == list(VERBS)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_and_scripts_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"\]\(([^):#]+)\)", text)) | set(re.findall(r"\bscripts/\w+(?:\.\w+)?", text))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
