"""The pages that specify the artifact, the parity report and the verbs are complete."""

import re
from dataclasses import fields
from typing import Any

import pytest
from intaglio.artifact import (
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
    data_name,
    graph_name,
)
from intaglio.cli.main import VERBS
from intaglio.contract import ACTIVATIONS
from intaglio.parity.report.report import Report
from intaglio.parity.report.result import (
    CaseResult,
    Continuation,
    Figures,
    Finding,
    LayerError,
    Limit,
    Reference,
    TensorError,
    WorstToken,
)

from .pages import ROOT

SPECIFICATION = (ROOT / "docs" / "artifact-format.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
PARITY = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")


GRAPHS = [graph_name(precision, cache) for precision in PRECISIONS for cache in ACTIVATIONS]
FILES = sorted({*GRAPHS, data_name(GRAPHS[0]), "model.onnx", "model.onnx.data"})


def json_keys(kind: Any) -> list[str]:
    """Return the keys of a record in JSON: its fields, but for the one that is called ``damage`` there."""
    return ["damage" if field.name == "kl_estimate" else field.name for field in fields(kind)]


@pytest.mark.parametrize("kind", [Manifest, ModelFacts, Source, TensorEntry, Quantization, FileEntry, Parity])
def test_every_field_of_the_manifest_is_specified(kind: Any) -> None:
    assert [name for name in json_keys(kind) if f"`{name}`" not in SPECIFICATION] == []


@pytest.mark.parametrize("word", [*FILES, MANIFEST, *TASKS, *TARGETS, *PRECISIONS])
def test_every_file_and_value_is_specified(word: str) -> None:
    assert f"`{word}`" in SPECIFICATION


def test_every_field_of_the_parity_report_is_specified() -> None:
    table = PARITY.partition("## parity.json")[2]
    kinds = (Report, CaseResult, Figures, Continuation, LayerError, TensorError, Finding, WorstToken, Reference, Limit)
    named = {name for kind in kinds for name in json_keys(kind)} - {"measure"}
    assert [name for name in sorted(named) if f"`{name}`" not in table] == []


def test_every_verb_is_listed_and_no_other() -> None:
    assert re.findall(r"^\| `intaglio (\w+)", COMMANDS, re.MULTILINE) == list(VERBS)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
