"""The second step of a quantization: the calibration text, and the sensitivity of each weight where bits are mixed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.weight_source import WeightSource
from ..progress import Progress
from .allocation.mix import measured_formats
from .calibration import read_windows
from .decide import Decision
from .layers.sensitivity import WINDOWS, Sensitivity, measure_sensitivity


@dataclass(frozen=True)
class Measurement:
    """The measurements on the calibration text.

    Args:
        windows: the text's tokens, int64 [W, S]; None where weights are only rounded.
        sensitivity: None where bits are not mixed.
    """

    windows: Tensor | None
    sensitivity: Sensitivity | None


@torch.no_grad()
def measure(checkpoint: WeightSource, decision: Decision, progress: Progress) -> Measurement:
    """Read the calibration text and estimate sensitivities, as far as the decision needs them.

    Args:
        progress: called with the stage "sensitivity", in layers.

    Raises:
        UsageError: the text cannot be used.
        CheckpointError, UnsupportedError: the checkpoint cannot be calibrated.
    """
    if decision.calibration is None:
        return Measurement(None, None)
    windows = read_windows(checkpoint.text_folder, decision.calibration, checkpoint.config.context_length)
    if not decision.mixes:
        return Measurement(windows, None)
    few = windows[torch.linspace(0, len(windows) - 1, min(WINDOWS, len(windows))).long()]
    formats = measured_formats(decision.candidates, decision.options)
    sensitivity = measure_sensitivity(
        checkpoint, decision.task, few, formats, lambda done, total: progress("sensitivity", done, total)
    )
    return Measurement(windows, sensitivity)
