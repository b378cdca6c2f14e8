"""A Ray cluster of two nodes on this machine, in processes of its own; ``local_cluster`` starts it.

Each line of standard input is a declaration that is deployed; each line of standard output says that it runs. The end
of standard input ends the cluster.
"""

# pyright: reportMissingImports=false

import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACE = "INTAGLIO_TEST_PACE"
"""The environment variable with the seconds that each step of a model takes longer."""


def main(port: int) -> None:
    from intaglio.serving.cluster import build as building
    from intaglio.serving.cluster.config import ClusterConfig
    from intaglio.tests.serving.cluster.faults import FaultyReplica
    from ray import serve

    building.Replica = FaultyReplica  # type: ignore[attr-defined]
    with two_nodes():
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        for line in sys.stdin:
            serve.run(building.build(ClusterConfig.model_validate(json.loads(line))), name="served")
            sys.stdout.write("running\n")
            sys.stdout.flush()
        serve.shutdown()


@contextmanager
def two_nodes() -> Iterator[None]:
    """Start two nodes with one processor each, and connect this process to them."""
    from ray import init, shutdown
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 << 20}
    # Sockets have paths of at most 107 bytes, and Ray's begin with its folder.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        Path(tempfile.gettempdir(), "ray").mkdir(exist_ok=True)
        cluster = Cluster(True, head_node_args={**node, "temp_dir": folder, "include_dashboard": False})
        cluster.add_node(**node)  # pyright: ignore[reportArgumentType]
        init(address=cluster.address, log_to_driver=False)
        try:
            yield
        finally:
            shutdown()
            cluster.shutdown()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(int(sys.argv[1]))
