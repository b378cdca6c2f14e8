"""A quantization before it is stored: decide, measure, solve."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ...artifact import CalibrationText, Target, Task
from ...devices.presets import DeviceName
from ...models.weight_source import WeightSource
from ..progress import Progress
from .decide import decide
from .measure import measure
from .options import QuantizedPrecision, QuantizeOptions
from .solve import Quantizer, solve


class Prepared(NamedTuple):
    """The weights as they are to be stored, and the texts that they were calibrated on."""

    quantizer: Quantizer
    texts: tuple[CalibrationText, ...]


def prepare(
    checkpoint: WeightSource,
    task: Task,
    target: Target,
    precision: QuantizedPrecision,
    options: QuantizeOptions,
    scratch: Path,
    progress: Progress,
    device: DeviceName | None = None,
) -> Prepared:
    """Run the three steps; this is quick where weights are only rounded.

    Args:
        scratch: a folder for what is solved.
        progress: called with the stages "text" (tokens), "sensitivity" (layers) and "calibration" (tokens).
        device: the device that the artifact is made for.

    Raises:
        UsageError: options that contradict each other, the model or the device.
        CheckpointError, UnsupportedError: the checkpoint cannot be calibrated or quantized.
    """
    decision = decide(checkpoint, task, target, precision, options, device)
    measurement = measure(checkpoint, decision, progress, scratch if options.resume else None)
    return Prepared(solve(checkpoint, decision, measurement, scratch, progress), measurement.texts)


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
