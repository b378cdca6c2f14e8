"""The second step of a quantization: the calibration text, and the sensitivity of each weight where bits are mixed."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...artifact import CalibrationText
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
        windows: the texts' tokens, int64 [W, S]; None where weights are only rounded.
        sensitivity: None where bits are not mixed.
        texts: the texts that the windows are from.
    """

    windows: Tensor | None
    sensitivity: Sensitivity | None
    texts: tuple[CalibrationText, ...] = ()


@torch.no_grad()
def measure(
    checkpoint: WeightSource, decision: Decision, progress: Progress, scratch: Path | None = None
) -> Measurement:
    """Read the calibration texts and estimate sensitivities, as far as the decision needs them.

    Args:
        progress: called with the stages "text" (tokens that the model generates) and "sensitivity" (layers).
        scratch: a folder in which to keep generated text for a later run.

    Raises:
        UsageError: the text cannot be used.
        CheckpointError, UnsupportedError: the checkpoint cannot be calibrated.
    """
    if decision.calibration is None:
        return Measurement(None, None)
    windows = read_windows(checkpoint, decision.calibration, progress, scratch)
    if not decision.mixes:
        return Measurement(windows.tokens, None, windows.texts)
    formats = measured_formats(decision.candidates, decision.options)
    sensitivity = measure_sensitivity(
        checkpoint,
        decision.task,
        windows.few(WINDOWS),
        formats,
        lambda done, total: progress("sensitivity", done, total),
    )
    return Measurement(windows.tokens, sensitivity, windows.texts)
