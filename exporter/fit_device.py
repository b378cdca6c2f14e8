"""The check that a device can run what is to be exported for it, before any work."""

from pathlib import Path

from ..artifact import FloatPrecision, Manifest, Precision, Target, Task
from ..devices.findings import REFUSED, findings
from ..devices.lint import GraphFacts
from ..devices.presets import PRESETS, TITLES, DeviceName
from ..devices.rules import Whole, shortest_window
from ..errors import UnsupportedError
from ..models.config import ModelConfig
from .quantize.options import QuantizeOptions


def check_device(
    device: DeviceName | None,
    config: ModelConfig,
    task: Task,
    target: Target,
    precision: Precision,
    activations: FloatPrecision,
    options: QuantizeOptions | None,
) -> None:
    """Check that the device's kernels can run the model with these choices.

    Raises:
        UnsupportedError: the device cannot run it; the message says what to do.
    """
    if device is None:
        return
    form = PRESETS[device].form
    whole = Whole(
        task,
        target,
        precision,
        activations,
        causal=config.causal,
        window=shortest_window(config.layer_windows, config.context_length),
        opset=form.opset or (23 if target == "ort" else 24),
        integer=options is not None and options.method == "smoothquant",
        optional_input=form.optional_logits_to_keep and task == "text-generation",
    )
    for finding in findings(device, whole):
        if finding.effect in REFUSED:
            raise UnsupportedError(
                f"{TITLES[device]} cannot run this: {finding.reason}; {finding.remedy} ({finding.source})"
            )
    if not form.rotates_inside and config.rope.length_dependent:
        raise UnsupportedError(
            f"{TITLES[device]} cannot run this: the rotary frequencies depend on the length of the text, and its "
            "kernel rotates by a table of positions; export for another device"
        )


def device_notes(device: DeviceName, folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """Return what of a new artifact runs slowly on the device that it is made for, or in some packages only."""
    found = GraphFacts(folder / manifest.graph, manifest).findings(device)
    words = {"partly": "runs in some packages", "slow": "runs slowly"}
    return tuple(
        f"on {TITLES[device]}, {words.get(finding.effect, 'does not run')}: {finding.reason}"
        + (f" ({finding.count} nodes)" if finding.count > 1 else "")
        for finding in found
    )
