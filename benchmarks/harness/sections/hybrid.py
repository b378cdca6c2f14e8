"""As growth.py, with intaglio's attention or ONNX Runtime's; matrix multiplications are intaglio's with both.

``settings``: those of growth.py, and {"attention": "intaglio" or "onnxruntime"}.
"""

from typing import Any
from unittest import mock

from intaglio.artifact import Manifest
from intaglio.runtime.kernels import replaceable

from ..job import Job
from . import growth

OPENING = "intaglio.runtime.engine.opening.replaceable"


def measure(job: Job) -> dict[str, Any]:
    """Return the figures of growth.py."""
    if job.settings["attention"] == "intaglio":
        return growth.measure(job)
    with mock.patch(OPENING, _all_but_attention):
        return growth.measure(job)


def _all_but_attention(manifest: Manifest, int8_cache: bool = False) -> tuple[str, ...]:
    return tuple(name for name in replaceable(manifest, int8_cache) if not name.startswith("GroupQueryAttention"))
