"""One measurement in this process: python -m race.worker JOB, which is a Job as JSON; prints its figures as JSON.

The process is pinned to as many processors as the job has threads.
"""

import importlib
import json
import os
import sys

from .job import Job


def main(text: str) -> None:
    job = Job.from_json(text)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.threads])
    found = importlib.import_module(f".sections.{job.section}", __package__).measure(job)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
