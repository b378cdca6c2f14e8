"""Which weights are quantized, and into what: from the options, the patterns of ``--keep``, and the mix."""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from ....artifact import Task
from ....errors import UsageError
from ....models.checkpoint import Checkpoint
from ....models.heads import build, trunk
from ....models.parameters import check_parameters, stored_name
from ..formats.blocks import BlockFormat
from ..layers.sensitivity import Damages
from ..options import Kept, QuantizedPrecision, QuantizeOptions
from .allocate import Choice, allocate

BLOCK_SIZE = 32
FINE = tuple(f"{name}.weight" for name in ("embed_tokens", "lm_head", *(f"{part}_proj" for part in (*"qkvo", "down"))))
FINE_BLOCK_SIZE = 16
"""For int8: what gains most a byte from smaller blocks. Activations have a scale for each block as well, and the head's
errors go straight into the choice of a token."""

SCALE_BYTES = 2
BITS_A_WEIGHT = 4.9
"""What the mix for int4 spends by default."""

MIXED_BLOCKS = (16, 32, 64, 128)
EIGHT_BITS_GAIN = 256.0
"""By how much 8 bits do less damage than 4 on the same blocks: the step is a sixteenth, its square what counts."""

GPTQ_GAIN = 1.7
"""By how much GPTQ's 4 bits do less than those that are rounded to the nearest, which is what is measured."""


@dataclass(frozen=True)
class WeightPlan:
    """How one tensor of the checkpoint is quantized; ``damage`` is estimated, in nats per token."""

    format: BlockFormat
    method: str
    accuracy_level: int = 4
    damage: float | None = field(default=None, compare=False)


Plan = Mapping[str, WeightPlan]
"""By tensor of the checkpoint; a tensor that is not in it stays in float."""


@dataclass(frozen=True)
class Target:
    """A weight that may be quantized: its module paths (two where it is tied), its tensor, its shape [N, K]."""

    paths: tuple[str, ...]
    tensor: str
    shape: tuple[int, int]
    gathered: bool

    @property
    def table(self) -> bool:
        """Whether it has a row for each word of the vocabulary."""
        return self.gathered or self.paths == ("lm_head",)


def targets(checkpoint: Checkpoint, task: Task) -> list[Target]:
    """The embedding, the LM head, and every projection of the layers; other heads' small projections stay in float.

    Raises:
        CheckpointError, UnsupportedError: its tensors are not those of the task's module.
    """
    with torch.device("meta"):
        module = build(checkpoint.config, task)
    check_parameters(checkpoint, task, module)
    inner = trunk(module, task)
    tied = checkpoint.config.tie_word_embeddings
    found = []
    for path, part in module.named_modules():
        inside = any(part is m for m in inner.modules())
        if isinstance(part, nn.Embedding):
            paths = (path, "lm_head") if tied and task == "text-generation" else (path,)
        elif isinstance(part, nn.Linear) and (inside or (path == "lm_head" and not tied)):
            paths = (path,)
        else:
            continue
        rows, columns = part.weight.shape
        gathered = isinstance(part, nn.Embedding)
        found.append(Target(paths, stored_name(checkpoint, f"{path}.weight", task), (rows, columns), gathered))
    return found


def kept(found: list[Target], keep: Mapping[str, Kept]) -> dict[str, Kept]:
    """What ``--keep`` says, by tensor.

    Raises:
        UsageError: a pattern that no weight's path matches.
    """
    answer: dict[str, Kept] = {}
    for pattern, precision in keep.items():
        hits = [t for t in found if any(fnmatch.fnmatchcase(path, pattern) for path in t.paths)]
        if not hits:
            some = ", ".join(dict.fromkeys(path for t in (found[0], *found[1:8], found[-1]) for path in t.paths))
            raise UsageError(
                f"--keep {pattern}: no weight that can be quantized has such a path; there are {some} and so on: "
                "give one of them, or a pattern with * such as '*.down_proj'"
            )
        answer |= {t.tensor: precision for t in hits}
    return answer


def uniform(found: list[Target], precision: QuantizedPrecision, options: QuantizeOptions, method: str) -> Plan:
    """Every weight in the same bits; ``--keep`` says what is not.

    Tables are rounded: what an error of an embedding costs is known where sensitivities are measured only. So is what
    is kept in 8 bits among 4: there is next to no error to make good.
    """
    special = kept(found, options.keep)
    plan = {}
    for target in found:
        wanted = special.get(target.tensor, precision)
        if wanted != "float":
            fine = precision == wanted == "int8" and target.tensor.endswith(FINE)
            size = options.block_size or (FINE_BLOCK_SIZE if fine else BLOCK_SIZE)
            format = _format(target, 4 if wanted == "int4" else 8, size)
            solves = method == "gptq" and not target.table and (format.bits == 4 or precision == "int8")
            plan[target.tensor] = WeightPlan(format, "gptq" if solves else "rtn")
    return plan


def mixed(found: list[Target], damages: Damages, options: QuantizeOptions, method: str) -> Plan:
    """Bits and blocks where they help most, within ``target_size`` or down to ``target_kl``.

    Raises:
        UsageError: the target cannot be met, with what can be.
    """
    special = kept(found, options.keep)
    floats = sum(4 * t.shape[0] * t.shape[1] for t in found if special.get(t.tensor) == "float")
    gain = GPTQ_GAIN if method == "gptq" else 1.0
    choices = {
        t.tensor: _choices(t, damages[t.tensor], special.get(t.tensor), gain, options)
        for t in found
        if special.get(t.tensor) != "float"
    }
    size = options.target_size
    if size is None and options.target_kl is None:
        # What is kept takes what it takes: the mix of the others must not pay for it.
        free = sum(t.shape[0] * t.shape[1] for t in found if t.tensor not in special)
        fixed = sum(choices[name][0].bytes for name in choices if name in special)
        size = int(free * BITS_A_WEIGHT / 8) + fixed + floats
    taken = allocate(choices, size=None if size is None else size - floats, damage=options.target_kl)
    total, harm = sum(c.bytes for c in taken.values()) + floats, sum(c.damage for c in taken.values())
    if options.target_size is not None and total > options.target_size:
        raise UsageError(
            f"target size is {options.target_size:,} bytes, and the weights take at least {total:,}; "
            "ask for more, or keep less in float or int8"
        )
    if options.target_kl is not None and harm > options.target_kl:
        raise UsageError(
            f"target KL is {options.target_kl:g} nats per token, and the best mix is estimated at {harm:.3g}; "
            "ask for more than that, or for --precision int8"
        )
    return {
        t.tensor: WeightPlan(
            taken[t.tensor].format,
            "gptq" if method == "gptq" and taken[t.tensor].format.bits == 4 else "rtn",
            damage=taken[t.tensor].damage,
        )
        for t in found
        if t.tensor in taken
    }


def measured_formats(found: list[Target], options: QuantizeOptions) -> dict[str, list[BlockFormat]]:
    """The 4-bit formats whose damage the mix must know, by tensor; those of 8 bits follow from them."""
    special = kept(found, options.keep)
    return {
        t.tensor: [_format(t, 4, size) for size in _sizes(options)] for t in found if special.get(t.tensor) != "float"
    }


def _sizes(options: QuantizeOptions) -> tuple[int, ...]:
    return (options.block_size,) if options.block_size else MIXED_BLOCKS


def _choices(
    target: Target, damages: Mapping[BlockFormat, float], only: Kept | None, gain: float, options: QuantizeOptions
) -> list[Choice[BlockFormat]]:
    choices = []
    for size in _sizes(options):
        for bits in (4, 8):
            if only in (None, f"int{bits}"):
                format = _format(target, bits, size)
                damage = damages[_format(target, 4, size)] / (EIGHT_BITS_GAIN if bits == 8 else gain)
                choices.append(Choice(format, format.bytes(*target.shape, SCALE_BYTES), damage))
    return choices


def _format(target: Target, bits: int, block_size: int) -> BlockFormat:
    # A gathered table has no zero points: their layouts in GatherBlockQuantized and MatMulNBits differ.
    return BlockFormat(bits, block_size, symmetric=bits == 8 or target.gathered)
