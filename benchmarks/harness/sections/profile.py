"""ONNX Runtime's profile of a decode step, by module and operator.

Profiling makes a step slower; only the shares are meaningful.
"""

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import onnxruntime

from ..engines.intaglio_runtime import Engine
from ..job import Job, varied
from ..node_names import layerless

PROMPT, STEPS = 128, 63
KERNEL = "_kernel_time"


def measure(job: Job) -> dict[str, Any]:
    """Return ``kernels``, the µs per step of each module and operator, and ``within``, those of whole passes."""
    with tempfile.TemporaryDirectory() as folder:
        sessions = _profile_sessions(f"{folder}/profile")
        engine = Engine(job)
        engine.generate([varied(job.prompt("long", PROMPT), 0)], 1 + STEPS)
        events = json.loads(Path(sessions[-1].end_profiling()).read_text(encoding="utf-8"))
    return summary(events, STEPS)


def summary(events: list[dict[str, Any]], count: int) -> dict[str, Any]:
    """Sum up the last ``count`` passes of a profile by module and operator, and divide by their number."""
    runs = sorted((e for e in events if e.get("name") == "model_run"), key=lambda e: e["ts"])[-count:]
    kernels: dict[str, float] = defaultdict(float)
    for event in events:
        if event["ts"] >= runs[0]["ts"] and str(event.get("name", "")).endswith(KERNEL):
            kernels[layerless(event["name"].removesuffix(KERNEL), event["args"]["op_name"])] += event["dur"] / count
    ordered = dict(sorted(kernels.items(), key=lambda item: -item[1]))
    return {"kernels": ordered, "within": sum(run["dur"] for run in runs) / count}


def _profile_sessions(prefix: str) -> list[Any]:
    """Make every later session of this process write a profile; return the list that receives them."""
    sessions: list[Any] = []
    original = onnxruntime.InferenceSession.__init__

    def opened(self: Any, model: Any, sess_options: Any = None, *arguments: Any, **options: Any) -> None:
        sess_options.enable_profiling = True
        sess_options.profile_file_prefix = prefix
        original(self, model, sess_options, *arguments, **options)
        sessions.append(self)

    onnxruntime.InferenceSession.__init__ = opened  # pyright: ignore[reportAttributeAccessIssue]
    return sessions
