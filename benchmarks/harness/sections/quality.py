"""The divergence of each tool's next tokens from the float32 model's, with the arithmetic that the tool runs with.

``settings["reference"]`` is the folder of quality_reference.py. intaglio is read twice: whole windows at once, as
prefill reads them, and every EVERY-th window token by token, as decode does, since they run through different kernels.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ..divergence import compare
from ..engines import open_logits
from ..job import Job

EVERY = 8


def measure(job: Job) -> dict[str, Any]:
    """Return the figures of ``compare``.

    For intaglio, ``step`` has decode's figures, ``step_prefill`` the KL of the same windows in prefill, and
    ``int8_cache`` the figures with an int8 KV cache, where the artifact supports one.
    """
    folder = Path(job.settings["reference"])
    figures = compare(open_logits(job), folder)
    if job.tool != "intaglio":
        return figures
    from intaglio.errors import UnsupportedError  # imported here: peers have it on their path but need not read it

    figures["step"] = compare(open_logits(job, stepwise=True), folder, EVERY)
    figures["step_prefill"] = float(np.mean(figures["kl_of_window"][::EVERY]))
    try:
        small = open_logits(job, kv_cache="int8")
    except UnsupportedError:
        return figures
    figures["int8_cache"] = compare(small, folder)
    return figures
