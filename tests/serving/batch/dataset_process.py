"""A job of Ray Data on two nodes: ``python -m intaglio.tests.serving.batch.dataset_process ARTIFACT FOLDER ROWS``.

Each line of standard output says how many rows are written, the first one before the job begins. After each block it
waits for the end of standard input, or for a line of it.
"""

# pyright: reportMissingImports=false

import sys
import warnings
from pathlib import Path


def main(artifact: str, folder: Path, count: int) -> None:
    import ray.data
    from intaglio.serving.batch.job import Blocks, run_dataset
    from intaglio.serving.batch.tasks import Generate
    from intaglio.tests.serving.cluster.cluster_process import two_nodes

    def say(done: int) -> None:
        sys.stdout.write(f"{done}\n")
        sys.stdout.flush()
        if done:
            sys.stdin.readline()

    options = {"max_new_tokens": 32, "temperature": 0}
    with two_nodes():
        rows = [{"id": number, "prompt": f"The temple {number} was"} for number in range(count)]
        rows[3]["prompt"] = ""
        blocks = Blocks(folder, "id", {"artifact": artifact, **options})
        say(len(blocks.keys))
        dataset = ray.data.from_items(rows)
        run_dataset(
            dataset, Generate, blocks, workers=2, batch_size=4, block_rows=8, progress=say, artifact=artifact, **options
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
