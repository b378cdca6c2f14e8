"""The local cluster: two nodes, each with one processor."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from intaglio.tests.serving.cluster.local_cluster import LocalCluster, local_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """A local cluster."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'intaglio[cpu,ray]'")
    with local_cluster() as started:
        yield started
