"""A server of tiny heads of Qwen2 and EXAONE 4.0, and of heads whose numbers are looked up in a table."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from intaglio import export
from intaglio.runtime.load import Model, load
from intaglio.tests import tiny
from intaglio.tests.runtime import fakes
from intaglio.tests.serving.live import live_server
from openai import OpenAI

TASKS = {
    "classify": "text-classification",
    "tag": "token-classification",
    "answer": "question-answering",
    "embed": "feature-extraction",
}


@pytest.fixture(scope="package")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Artifacts by name: "qwen2-classify", "exaone4-answer" and so on, and "rerank", with one label."""
    folder = tmp_path_factory.mktemp("heads")
    made = {}
    for family in ("qwen2", "exaone4"):
        for name, task in TASKS.items():
            source = tiny.write(folder / f"{family}-{name}-source", tiny.config(family, task), tokenizer=True)
            made[f"{family}-{name}"] = folder / f"{family}-{name}"
            export(source, made[f"{family}-{name}"])
    table = np.random.default_rng(0).normal(scale=0.1, size=(fakes.VOCAB, 1))
    made["rerank"] = fakes.head(folder / "rerank", "text-classification", table, labels=("LABEL_0",))
    made["lm"] = fakes.language_model(folder / "lm")
    return made


@pytest.fixture(scope="package")
def library(heads: dict[str, Path]) -> dict[str, Model]:
    """The same artifacts, loaded in the test."""
    return {name: load(folder, threads=1) for name, folder in heads.items()}


@pytest.fixture(scope="package")
def server(heads: dict[str, Path]) -> Iterator[str]:
    """The address of a server of the heads, in place of that of the models that write."""
    with live_server(heads) as address:
        yield address


@pytest.fixture
def client(server: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0) as client:
        yield client
