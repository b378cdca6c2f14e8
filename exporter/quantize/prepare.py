"""A quantization before it is stored: decide, measure, solve."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...artifact import Target, Task
from ...devices.presets import DeviceName
from ...models.weight_source import WeightSource
from ..progress import Progress
from .decide import decide
from .measure import measure
from .options import QuantizedPrecision, QuantizeOptions
from .solve import Quantizer, solve


def prepare(
    checkpoint: WeightSource,
    task: Task,
    target: Target,
    precision: QuantizedPrecision,
    options: QuantizeOptions,
    scratch: Path,
    progress: Progress,
    device: DeviceName | None = None,
) -> Quantizer:
    """Run the three steps; this is quick where weights are only rounded.

    Args:
        scratch: a folder for what is solved.
        progress: called with the stages "sensitivity" (layers) and "calibration" (tokens).
        device: the device that the artifact is made for.

    Raises:
        UsageError: options that contradict each other, the model or the device.
        CheckpointError, UnsupportedError: the checkpoint cannot be calibrated or quantized.
    """
    decision = decide(checkpoint, task, target, precision, options, device)
    measurement = measure(checkpoint, decision, progress)
    return solve(checkpoint, decision, measurement, scratch, progress)


@contextmanager
def scratch_folder(out: Path, *, resume: bool) -> Iterator[Path]:
    """Make a hidden sibling of ``out`` and remove it at the end; with ``resume`` it is left after a failure."""
    folder = out.absolute().with_name(f".{out.name}.intaglio-layers")
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    done = False
    try:
        yield folder
        done = True
    finally:
        if done or not resume:
            shutil.rmtree(folder, ignore_errors=True)
