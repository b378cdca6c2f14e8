"""From options to an answer for every weight: what it is quantized to, and where its blocks come from."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ...artifact import Target, Task
from ...errors import UnsupportedError, UsageError
from ...models.checkpoint import Checkpoint
from ..weights import Stacked, Stored
from .allocation.plan import Plan, WeightPlan, kept, measured_formats, mixed, targets, uniform
from .calibration import WINDOWS, Calibration, read_windows
from .formats.channels import ChannelWeight, channel_format
from .formats.recipes import Quantized, Rounded, Solved
from .layers import sensitivity
from .layers.solve import solve
from .methods.rescale import RescaledCheckpoint
from .methods.smooth import integer_product, smoothing, weight_product
from .options import QuantizedPrecision, QuantizeOptions

Progress = Callable[[str, int, int], None]

AWQ, SMOOTHQUANT = "awq", "smoothquant"
SMOOTHED = (".mlp.gate_proj.weight", ".mlp.up_proj.weight", ".self_attn.o_proj.weight")
SMOOTHING_WINDOWS = 16


class Choice:
    """What is to become of a weight: called with the recipe of one that a graph multiplies by or gathers from.

    ``checkpoint`` is where weights are read from: the one that was given, or one that computes the same with other
    numbers.
    """

    def __init__(self, plan: Plan, solved: Path, checkpoint: Checkpoint) -> None:
        self.plan = plan
        self.solved = solved
        self.checkpoint = checkpoint

    def alike(self, tensors: Sequence[str]) -> bool:
        """Whether tensors can be one: they are quantized alike, or not at all."""
        return all(self.plan.get(name) == self.plan.get(tensors[0]) for name in tensors)

    def __call__(self, weight: Stored | Stacked) -> Quantized | None:
        """The weight in blocks; None where it stays in float, or goes into an integer product."""
        planned = self.plan.get(weight.sources[0])
        if planned is None or planned.method == SMOOTHQUANT:
            return None
        assert self.alike(weight.sources)
        damages = [self.plan[name].damage for name in weight.sources]
        damage = sum(d for d in damages if d is not None) if None not in damages else None
        if planned.method in ("rtn", AWQ):
            rounded = Rounded(weight, planned.format, method=planned.method)
            return Quantized(rounded, planned.accuracy_level, damage)
        return Quantized(Solved(weight, planned.format, self.solved, planned.method), planned.accuracy_level, damage)

    def channels(self, weight: Stored | Stacked) -> ChannelWeight | None:
        """The weight of an integer product; None where it is none."""
        planned = self.plan.get(weight.sources[0])
        if planned is None or planned.method != SMOOTHQUANT:
            return None
        return ChannelWeight(Solved(weight, planned.format, self.solved, planned.method))


@torch.no_grad()
def prepare(
    checkpoint: Checkpoint,
    task: Task,
    target: Target,
    precision: QuantizedPrecision,
    options: QuantizeOptions,
    scratch: Path,
    report: Progress,
) -> Choice:
    """Measure and solve what the options ask for; quick where they ask for rounding alone.

    Args:
        scratch: a folder for what is solved.
        report: hears (stage, done, total) of the stages sensitivity (layers) and calibration (tokens).

    Raises:
        UsageError: options that contradict each other or the model.
        CheckpointError, UnsupportedError: the checkpoint cannot be calibrated or quantized.
    """
    found = targets(checkpoint, task)
    kept(found, options.keep)  # a pattern that matches nothing is told before anything long begins
    mixes = options.target_size is not None or options.target_kl is not None
    if options.target_kl is not None and task != "text-generation":
        raise UsageError(f"target KL is a measure of next tokens, and the task is {task}; give a target size")
    if options.method == SMOOTHQUANT:
        _check_smoothquant(target, precision, options)
    mixes |= precision == "int4" and options.method == "auto"
    method = options.method
    if method == "auto":
        method = "gptq" if precision == "int4" or mixes else "rtn"
    plan = uniform(found, precision, options, method)
    if not mixes and method == "rtn":
        if options.calibration is not None:
            raise UsageError("--calibration is given, and rounding to the nearest reads no text; use --method gptq")
        return Choice(plan, scratch, checkpoint)
    text = Calibration(windows=options.windows or WINDOWS)
    if options.calibration is not None:
        text = replace(text, text=options.calibration)
    windows = read_windows(checkpoint.folder, text, checkpoint.config.context_length)
    embedding = None
    if mixes:
        few = windows[torch.linspace(0, len(windows) - 1, min(sensitivity.WINDOWS, len(windows))).long()]
        formats = measured_formats(found, options)
        measured = sensitivity.measure(
            checkpoint, task, few, formats, lambda done, total: report("sensitivity", done, total)
        )
        embedding = measured.embedding
        plan = mixed(found, measured.damages, options, method)
    if method == AWQ:
        return _folded(checkpoint, plan, windows, scratch, report)
    if method == SMOOTHQUANT:
        return _smoothed(checkpoint, plan, windows, scratch, report)
    if any(item.method == "gptq" for item in plan.values()):
        solved = solve(
            checkpoint, plan, windows, embedding, scratch, lambda done, total: report("calibration", done, total)
        )
        if target == "ort":  # standard operators do not say what activations are multiplied in
            plan = solved
    return Choice(plan, scratch, checkpoint)


def _folded(checkpoint: Checkpoint, plan: Plan, windows: Tensor, scratch: Path, report: Progress) -> Choice:
    """Scales that spread the columns that matter most over more codes, wherever something can carry them."""
    formats = {item.format for name, item in plan.items() if ".layers." in name or name.startswith("layers.")}
    product = weight_product(min(formats, key=lambda format: format.bits))
    folded = smoothing(
        checkpoint,
        windows[:SMOOTHING_WINDOWS],
        set(plan),
        product,
        lambda done, total: report("sensitivity", done, total),
    )
    scaled = {name for fold in folded for name in fold.carrier.multiplied}
    methods = {name: replace(item, method=AWQ) if name in scaled else item for name, item in plan.items()}
    return Choice(methods, scratch, RescaledCheckpoint(checkpoint, folded))


def _check_smoothquant(target: Target, precision: QuantizedPrecision, options: QuantizeOptions) -> None:
    """
    Raises:
        UsageError: options that the method cannot go with.
    """
    if precision != "int8" or target != "ort" or options.activations != "fp32":
        raise UsageError(
            f"method {SMOOTHQUANT} makes integer products of ONNX Runtime's CPU kernels: it is for --precision int8, "
            "--target ort and --activations fp32; leave the method out for others"
        )
    if options.target_size is not None or options.target_kl is not None:
        raise UsageError(
            f"method {SMOOTHQUANT} stores weights in 8 bits, and a target mixes bits; leave one of them out"
        )


def _smoothed(checkpoint: Checkpoint, plan: Plan, windows: Tensor, scratch: Path, report: Progress) -> Choice:
    """Gate, up and o as integer products with a scale for each token; blocks of 8 bits for the rest, as planned.

    Gate and up are more than half of a prefill. The inputs of q, k, v and of down are too uneven for one scale a token,
    smoothed or not. Weights with one scale a row are coarse: GPTQ makes their error good.
    """
    wanted = {name for name, item in plan.items() if name.endswith(SMOOTHED) and item.format.bits == 8}
    few = windows[:SMOOTHING_WINDOWS]
    folded = smoothing(checkpoint, few, wanted, integer_product, lambda done, total: report("sensitivity", done, total))
    if not any(name.endswith(SMOOTHED[0]) for fold in folded for name in fold.carrier.multiplied):
        raise UnsupportedError(
            f"{checkpoint.folder}: method {SMOOTHQUANT} folds scales into the norm in front of gate and up, and "
            f"{checkpoint.config.family} has none there, or --keep keeps them; use --method rtn"
        )
    channels = {
        name: WeightPlan(channel_format(checkpoint.tensors[name].shape[1]), SMOOTHQUANT)
        for fold in folded
        for name in fold.carrier.multiplied
    }
    even = RescaledCheckpoint(checkpoint, folded)
    plan = {**plan, **channels}
    solve(even, plan, windows, None, scratch, lambda done, total: report("calibration", done, total))
    return Choice(plan, scratch, even)


@contextmanager
def scratch_folder(out: Path, *, resume: bool) -> Iterator[Path]:
    """A hidden sibling of ``out`` that is gone afterwards; with ``resume`` it outlives a failure."""
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
