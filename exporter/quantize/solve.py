"""The third step of a quantization: compute the blocks of every weight from the measurements."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ...devices.presets import PRESETS
from ...errors import UnsupportedError
from ...models.weight_source import WeightSource
from ..progress import Progress
from ..weights import Stacked, Stored
from .allocation.mix import mixed
from .decide import Decision
from .formats.blocks import channel_format
from .formats.scheme import Scheme, Schemes
from .formats.weight import RowSource
from .layers.gptq_pass import solve_gptq
from .layers.smoothing import smoothing
from .measure import Measurement
from .methods.rescale import RescaledCheckpoint
from .methods.row_sources import Rounded, Solved
from .methods.smooth import integer_matmul, weight_only_matmul

SMOOTHED = (".mlp.gate_proj.weight", ".mlp.up_proj.weight", ".self_attn.o_proj.weight")
SMOOTHING_WINDOWS = 16
EXPERTS = re.compile(r"\.mlp\.(experts\.\d+|shared_expert)\.")


class Quantizer:
    """The solved weights, from which the graph's passes take quantized rows.

    Args:
        schemes: by tensor.
        folder: the folder of the tensors solved by GPTQ.
        checkpoint: the checkpoint to read weights from: the given one, or one with scales folded in.
    """

    def __init__(self, schemes: Schemes, folder: Path, checkpoint: WeightSource) -> None:
        self.schemes = schemes
        self.folder = folder
        self.checkpoint = checkpoint

    def alike(self, tensors: Sequence[str]) -> bool:
        """Return true if the tensors can be stored as one: they have the same scheme, or all stay in float."""
        return all(self.schemes.get(name) == self.schemes.get(tensors[0]) for name in tensors)

    @property
    def notes(self) -> tuple[str, ...]:
        """Say which experts are rounded to the nearest where the method is another one."""
        return (*self._without_scales(), *self._unreached())

    def _without_scales(self) -> tuple[str, ...]:
        """Say that AWQ rounds experts: other things read the norm in front of them, and scales are folded elsewhere."""
        scaled = any(one.method == "awq" for one in self.schemes.values())
        experts = [name for name in self.schemes if EXPERTS.search(name)]
        if not scaled or not experts:
            return ()
        return (
            f"method awq folds scales into attention, and none into experts: {len(experts)} matrices of experts and "
            "shared experts are rounded to the nearest",
        )

    def _unreached(self) -> tuple[str, ...]:
        """Name the experts among others that GPTQ solved: the text does not reach them."""
        experts = {name: one for name, one in self.schemes.items() if ".experts." in name}
        solved = {(_mixture(name), one.format) for name, one in experts.items() if one.method == "gptq"}
        rounded = [
            name for name, one in experts.items() if one.method == "rtn" and (_mixture(name), one.format) in solved
        ]
        names = dict.fromkeys(name.rsplit(".", 2)[0] for name in rounded)
        if not names:
            return ()
        count = "1 expert is" if len(names) == 1 else f"{len(names)} experts are"
        return (f"{count} rounded to the nearest, since the calibration text does not reach: {', '.join(names)}",)

    def blocks(self, weight: Stored | Stacked) -> RowSource | None:
        """Return the rows of a weight in blocks; None for one in float or of an integer matrix multiplication."""
        scheme = self._scheme(weight)
        if scheme is None or scheme.method == "smoothquant":
            return None
        if scheme.method in ("rtn", "awq"):
            return Rounded(weight, scheme)
        return Solved(weight, scheme, self.folder)

    def channels(self, weight: Stored | Stacked) -> RowSource | None:
        """Return the rows of the weight of an integer matrix multiplication; None for any other."""
        scheme = self._scheme(weight)
        if scheme is None or scheme.method != "smoothquant":
            return None
        return Solved(weight, scheme, self.folder)

    def _scheme(self, weight: Stored | Stacked) -> Scheme | None:
        first = self.schemes.get(weight.sources[0])
        if first is None:
            return None
        assert self.alike(weight.sources)
        estimates = [self.schemes[name].kl_estimate for name in weight.sources]
        total = sum(kl for kl in estimates if kl is not None) if None not in estimates else None
        return replace(first, kl_estimate=total)


def _mixture(tensor: str) -> str:
    return tensor.rpartition(".experts.")[0]


@torch.no_grad()
def solve(
    checkpoint: WeightSource, decision: Decision, measurement: Measurement, scratch: Path, progress: Progress
) -> Quantizer:
    """Fix the format of every weight, and solve those that are not simply rounded.

    Args:
        scratch: a folder for what is solved.
        progress: called with the stages "sensitivity" (layers) and "calibration" (tokens).

    Raises:
        UsageError: the mix cannot meet the target.
        UnsupportedError: the checkpoint cannot be quantized in this way.
    """
    quantizer = _solved(checkpoint, decision, measurement, scratch, progress)
    level: int | None = decision.options.accuracy_level
    if level is None and decision.device is not None:
        level = PRESETS[decision.device].accuracy_level
    if level is not None:
        quantizer.schemes = {name: replace(s, accuracy_level=level) for name, s in quantizer.schemes.items()}
    return quantizer


def _solved(
    checkpoint: WeightSource, decision: Decision, measurement: Measurement, scratch: Path, progress: Progress
) -> Quantizer:
    """Return the weights as ``solve`` does, with the accuracy levels that the calibration favours."""
    schemes, sensitivity = decision.schemes, measurement.sensitivity
    if sensitivity is not None:
        schemes = mixed(decision.candidates, sensitivity.kl_estimates, decision.options, decision.method)
    windows = measurement.windows
    if windows is None:
        return Quantizer(schemes, scratch, checkpoint)
    if decision.method == "awq":
        return _solve_awq(checkpoint, schemes, windows, scratch, progress)
    if decision.method == "smoothquant":
        return _solve_smoothquant(checkpoint, schemes, windows, scratch, progress, resume=decision.options.resume)
    if any(scheme.method == "gptq" for scheme in schemes.values()):
        calibrated, resume = partial(progress, "calibration"), decision.options.resume
        solved = solve_gptq(checkpoint, schemes, windows, sensitivity, scratch, calibrated, resume=resume)
        if decision.target == "ort":  # standard operators do not say what activations are multiplied in
            schemes = solved
    return Quantizer(schemes, scratch, checkpoint)


def _solve_awq(
    checkpoint: WeightSource, schemes: Schemes, windows: Tensor, scratch: Path, progress: Progress
) -> Quantizer:
    """Fold scales that spend more codes on the most important columns, wherever a stage has a carrier."""
    formats = {item.format for name, item in schemes.items() if ".layers." in name or name.startswith("layers.")}
    foldings = smoothing(
        checkpoint,
        windows[:SMOOTHING_WINDOWS],
        set(schemes),
        weight_only_matmul(min(formats, key=lambda format: format.bits)),
        lambda done, total: progress("sensitivity", done, total),
    )
    scaled = {name for folding in foldings for name in folding.carrier.multiplied}
    named = {name: replace(item, method="awq") if name in scaled else item for name, item in schemes.items()}
    return Quantizer(named, scratch, RescaledCheckpoint(checkpoint, foldings))


def _solve_smoothquant(
    checkpoint: WeightSource, schemes: Schemes, windows: Tensor, scratch: Path, progress: Progress, *, resume: bool
) -> Quantizer:
    """Make gate, up and o integer matrix multiplications with a scale for each token; the rest stays as it is.

    Gate and up are more than half of a prefill. The inputs of q, k, v and of down are too uneven for one scale a token,
    smoothed or not. One scale a row is coarse: GPTQ compensates the error.
    """
    wanted = {name for name, item in schemes.items() if name.endswith(SMOOTHED) and item.format.bits == 8}
    few = windows[:SMOOTHING_WINDOWS]
    foldings = smoothing(
        checkpoint, few, wanted, integer_matmul, lambda done, total: progress("sensitivity", done, total)
    )
    multiplied = [name for folding in foldings for name in folding.carrier.multiplied]
    if not any(name.endswith(SMOOTHED[0]) for name in multiplied):
        config = checkpoint.config
        why = "the router and the experts read it too" if config.experts else f"{config.family} has none there"
        raise UnsupportedError(
            f"{checkpoint.folder}: method smoothquant folds scales into the norm in front of gate and up, and {why}, "
            "or --keep keeps them; use --method rtn"
        )
    channels = {name: Scheme(channel_format(checkpoint.tensors[name].shape[1]), "smoothquant") for name in multiplied}
    rescaled = RescaledCheckpoint(checkpoint, foldings)
    schemes = {**schemes, **channels}
    solve_gptq(rescaled, schemes, windows, None, scratch, partial(progress, "calibration"), resume=resume)
    return Quantizer(schemes, scratch, rescaled)
