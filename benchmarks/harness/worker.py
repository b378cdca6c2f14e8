"""Run one job in this process: python -m intaglio.benchmarks.harness.worker JOB; prints the figures as JSON.

JOB is a ``Job`` as JSON. The process is pinned to as many processors as the job has threads.
"""

import importlib
import json
import os
import sys

from .job import Job


def main(text: str) -> None:
    job = Job.from_json(text)
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.threads])
    figures = importlib.import_module(f".sections.{job.section}", __package__).measure(job)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1])
