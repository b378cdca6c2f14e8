"""What a quantization would write, and what it would take, from config.json and the headers of the weights."""

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Literal

from ...artifact import MANIFEST, Attention, Target, Task
from ...devices.presets import DeviceName, form_for
from ...files.gguf_files import gguf_file
from ...hub import resolve
from ...machine import available_memory, peak_rss
from ...models.heads import check_task
from ...models.outline import Outline
from ...models.reading.options import ReadOptions
from ...models.weight_source import WeightSource
from ..build import build_graph
from ..export import open_source
from ..fit_device import check_device
from ..quantize.allocation.mix import measured_formats, mixed
from ..quantize.decide import Decision, decide
from ..quantize.formats.scheme import Schemes
from ..quantize.options import QuantizedPrecision, QuantizeOptions
from ..quantize.solve import Quantizer
from ..write import weight_bytes
from .memory import phases
from .rates import Rates, measure_rates
from .seconds import seconds
from .work import Work

SMALL_FILES = ("config.json",)
"""What is fetched of a hub id."""

ANY_KL, ANY_SIZE = 1e30, 1 << 60


@dataclass(frozen=True)
class Estimate:
    """An estimate.

    Args:
        least, most: the bytes of the weights; they differ where a target KL decides on them.
        seconds: of each stage.
        memory: the peak of the process in bytes; None where the system has no figure of what it takes by itself.
        phases: the bytes of each phase above ``base``.
        free: the bytes of memory that are free now, or None.
    """

    family: str
    task: Task
    precision: QuantizedPrecision
    target: Target
    method: str
    parameters: int
    least: int
    most: int
    seconds: dict[str, float]
    base: int | None
    phases: dict[str, int]
    free: int | None

    @property
    def memory(self) -> int | None:
        return None if self.base is None else self.base + max(self.phases.values())


def estimate(
    source: str | Path,
    *,
    precision: QuantizedPrecision,
    options: QuantizeOptions,
    task: Task | Literal["auto"] = "auto",
    target: Target = "ort",
    device: DeviceName | None = None,
    attention: Attention | None = None,
    ignore_auto_map: bool = False,
    ignore_adapter: bool = False,
    revision: str | None = None,
    rates: Rates | None = None,
) -> Estimate:
    """Estimate a quantization; no weights are read, and of a hub id only config.json is fetched.

    Args:
        source: as for ``export``; also a folder that has config.json and no weights.
        rates: those of this machine; None measures them, which takes a few seconds.

    Raises:
        UsageError, CheckpointError, UnsupportedError, HubError: as ``export``, as far as it follows from the headers.
    """
    folder = resolve(source, revision=revision, patterns=SMALL_FILES).folder
    reading = ReadOptions(attention, ignore_auto_map, ignore_adapter)
    checkpoint = open_source(folder, reading) if _has_weights(folder) else Outline(folder, reading)
    chosen = checkpoint.task if task == "auto" else task
    check_task(checkpoint.config, chosen)
    activations = options.computes_in(device)
    check_device(device, checkpoint.config, chosen, target, precision, activations, options)
    decision = decide(checkpoint, chosen, target, precision, options, device)
    least = schemes = _schemes(decision, options)
    most = least
    if options.target_kl is not None:
        most = _schemes(decision, replace(options, target_kl=None, target_size=ANY_SIZE))
    sizes = []
    for each in (least, most):
        quantizer = Quantizer({name: replace(one, method="rtn") for name, one in each.items()}, Path(), checkpoint)
        graph = build_graph(checkpoint, chosen, target, activations, lambda *_: None, quantizer, form_for(device))
        sizes.append(weight_bytes(graph))
        if most is least:
            break
    formats = max((len(few) for few in measured_formats(decision.candidates, options).values()), default=0)
    work = Work.of(checkpoint.config, decision, schemes, checkpoint.trunk_prefix, formats)
    base = peak_rss()
    if rates is None:
        widest = max((one for layer in work.layers for one in layer.projections), key=lambda one: one.size)
        rates = measure_rates(widest.rows, widest.columns)
    return Estimate(
        family=checkpoint.config.family,
        task=chosen,
        precision=precision,
        target=target,
        method=decision.method,
        parameters=_parameters(checkpoint),
        least=sizes[0],
        most=sizes[-1],
        seconds=seconds(work, rates),
        base=base,
        phases=phases(work),
        free=available_memory(),
    )


def _has_weights(folder: Path) -> bool:
    """Return true for a folder with weights, a GGUF file, or an artifact."""
    if not folder.is_dir() or (folder / MANIFEST).is_file() or gguf_file(folder) is not None:
        return True
    return any(folder.glob("*.safetensors*")) or any(folder.glob("*.bin*"))


def _schemes(decision: Decision, options: QuantizeOptions) -> Schemes:
    """Return the formats of the weights: of a mix, those for estimates that grow with the size of a weight.

    They take the bytes that the mix takes. Which weights get more bits is known only when it is measured.
    """
    if not decision.mixes:
        return decision.schemes
    if options.target_kl is not None:
        options = replace(options, target_kl=ANY_KL)
    sizes = {one.tensor: one.size for one in decision.candidates}
    estimates = {
        name: {format: sizes[name] * format.block_size**0.5 for format in formats}
        for name, formats in measured_formats(decision.candidates, options).items()
    }
    return mixed(decision.candidates, estimates, options, decision.method)


def _parameters(checkpoint: WeightSource) -> int:
    return sum(prod(info.shape) for info in checkpoint.tensors.values())
