"""Write the reference's predictions, which the section ``quality`` compares with."""

from pathlib import Path
from typing import Any

from ..divergence import write_reference
from ..engines import open_logits
from ..job import Job


def measure(job: Job) -> dict[str, Any]:
    """Write them into the folder ``settings["reference"]``; return no figures."""
    write_reference(open_logits(job), Path(job.settings["reference"]))
    return {}
