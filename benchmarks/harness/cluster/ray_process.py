"""Ray Serve on this machine, in a process of its own: ``python -m ... PORT DECLARATION``, in an environment with Ray.

Writes the line ``running`` once the replicas are there; the end of standard input ends Ray.
"""

# pyright: reportMissingImports=false

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

PROCESSORS = 2
OBJECT_STORE = 80 << 20  # the least that Ray takes


def main(port: int, declaration: dict[str, Any]) -> None:
    import ray
    from intaglio.serving.cluster.build import build
    from intaglio.serving.cluster.config import ClusterConfig
    from ray import serve

    # Sockets have paths of at most 107 bytes, and Ray's begin with its folder.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        Path(tempfile.gettempdir(), "ray").mkdir(exist_ok=True)
        ray.init(
            num_cpus=PROCESSORS,
            object_store_memory=OBJECT_STORE,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=folder,
        )
        try:
            serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
            serve.run(build(ClusterConfig.model_validate(declaration)), name="served")
            sys.stdout.write("running\n")
            sys.stdout.flush()
            sys.stdin.read()
            serve.shutdown()
        finally:
            ray.shutdown()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
