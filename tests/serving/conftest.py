"""Artifacts of the trained tiny checkpoints, exported once, and a server of them."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from intaglio import export
from intaglio.tests.serving.live import live_server

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny checkpoints as artifacts, by name: "qwen2", "exaone4" (text) and "sst2" (classification)."""
    made = {}
    for name, checkpoint in (("qwen2", "tiny-qwen2"), ("exaone4", "tiny-exaone4"), ("sst2", "tiny-qwen2-sst2")):
        made[name] = tmp_path_factory.mktemp("served") / name
        export(CHECKPOINTS / checkpoint, made[name])
    return made


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
