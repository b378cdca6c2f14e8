"""Artifacts of the heads beside classification."""

from pathlib import Path

import pytest
from intaglio import export
from intaglio.tests import tiny

TASKS = {"embed": "feature-extraction", "tag": "token-classification", "answer": "question-answering"}


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Artifacts of random weights for embeddings, tags and answers, by their verbs."""
    made = {}
    for verb, task in TASKS.items():
        folder = tmp_path_factory.mktemp("heads")
        tiny.write(folder / "checkpoint", tiny.config("qwen2", task), tokenizer=True)
        made[verb] = folder / verb
        export(folder / "checkpoint", made[verb])
    return made
