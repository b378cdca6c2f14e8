"""Artifacts of the trained tiny checkpoints, exported once, and a server of them."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from intaglio.tests.serving.artifacts import export_all, export_heads
from intaglio.tests.serving.live import live_server


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The artifacts of ``ARTIFACTS`` by name."""
    return export_all(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The artifacts of ``HEADS`` by their verbs."""
    return export_heads(tmp_path_factory.mktemp("heads"))


@pytest.fixture(scope="session")
def server(artifacts: dict[str, Path]) -> Iterator[str]:
    """The address of a server of all artifacts with default settings, but shorter texts."""
    with live_server(artifacts) as address:
        yield address


@pytest.fixture
def http(server: str) -> Iterator[httpx.Client]:
    """A plain HTTP client of the server."""
    with httpx.Client(base_url=server, timeout=60) as client:
        yield client
