"""Unmodified clients over every feature of the server: what a trial finds is what the table of docs/clients.md says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from intaglio.scripts.clients import table
from intaglio.scripts.interop.environments import UnavailableError
from intaglio.tests.serving.clients.facts import Facts, facts_of
from intaglio.tests.serving.clients.features import features
from intaglio.tests.serving.clients.runs import (
    CLIENTS,
    FRAMEWORKS,
    JAVASCRIPT,
    MODELS,
    PYTHON,
    framework_outcome,
    javascript_outcomes,
    python_outcome,
)

AGAIN = "run python -m intaglio.scripts.clients --write"


@pytest.fixture(scope="module")
def facts(artifacts: dict[str, Path]) -> dict[str, Facts]:
    """What the library says of each model."""
    return {model: facts_of(artifacts[model]) for model in MODELS}


@pytest.fixture(scope="module")
def page() -> dict[tuple[str, str], str]:
    """The cells of the table, by the feature's title and the client."""
    return table.cells(table.written())


SLOW = {title: pytest.param(title, marks=pytest.mark.slow) for title in PYTHON if "async" in title}


@pytest.fixture(scope="module", params=[SLOW.get(title, title) for title in PYTHON])
def client(request: pytest.FixtureRequest, server: str) -> Iterator[tuple[str, Any]]:
    """A client for Python, after its title."""
    with PYTHON[request.param](server) as opened:
        yield request.param, opened


@pytest.mark.parametrize("key", features())
def test_openai_for_python(
    client: tuple[str, Any], key: str, facts: dict[str, Facts], page: dict[tuple[str, str], str]
) -> None:
    title, opened = client
    found = table.cell(python_outcome(opened, key, facts))
    assert page[features()[key].title, title] == found, AGAIN


@pytest.mark.slow
def test_openai_for_javascript(server: str, facts: dict[str, Facts], page: dict[tuple[str, str], str]) -> None:
    try:
        outcomes = javascript_outcomes(server, facts)
    except UnavailableError as error:
        pytest.skip(str(error))
    assert outcomes.keys() == features().keys()
    for key, found in outcomes.items():
        assert page[features()[key].title, JAVASCRIPT] == table.cell(found), AGAIN


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of the libraries
@pytest.mark.parametrize(("title", "key"), [(title, key) for title, trials in FRAMEWORKS.items() for key in trials])
def test_frameworks(
    title: str, key: str, server: str, facts: dict[str, Facts], page: dict[tuple[str, str], str]
) -> None:
    pytest.importorskip({"LiteLLM": "litellm", "LangChain": "langchain_openai"}[title])
    found = table.cell(framework_outcome(FRAMEWORKS[title], server, key, facts))
    assert page[features()[key].title, title] == found, AGAIN


def test_the_page_has_every_feature_and_no_other() -> None:
    titles = {feature.title for feature in features().values()}
    assert len(titles) == len(features())
    assert set(table.cells(table.written())) == {(title, client) for title in titles for client in CLIENTS}


def test_every_feature_is_tried_with_the_clients_of_openai(page: dict[tuple[str, str], str]) -> None:
    tried = {client: {title for (title, one), cell in page.items() if one == client and cell} for client in CLIENTS}
    assert tried["openai, Python"] == tried["openai, Python, async"] == tried[JAVASCRIPT]
    assert len(tried[JAVASCRIPT]) == len(features())
