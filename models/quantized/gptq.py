"""GPTQ checkpoints of AutoGPTQ, GPTQModel, optimum and others.

A weight [N, K] is in ``qweight`` int32 [K * bits / 32, N], ``qzeros`` int32 [G, N * bits / 32], ``scales`` [G, N], and
perhaps ``g_idx`` int32 [K], the group of each column: ``scale * (code - zero point)``. The format ``gptq`` stores zero
points less one, ``gptq_v2`` as they are. Which weights are quantized, and in how many bits, is read off the tensors and
must be among what the settings say.

Sources: AutoGPTQ's and GPTQModel's QuantLinear, https://github.com/ModelCloud/GPTQModel.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from ...errors import CheckpointError, UnsupportedError
from ...files.json_fields import JSONFields, is_integer, shown
from ..storage.store import TensorStore
from .packed.members import Scheme, ZeroPoints
from .packed.weight import packed_weights
from .weights import QuantizedWeights

BITS = (2, 3, 4, 8)
V1, V2 = "gptq", "gptq_v2"
MOST_COLUMNS = 1 << 20
REMEDY = "export the checkpoint that it was made from"


def read_gptq(settings: JSONFields, store: TensorStore, folder: Path) -> QuantizedWeights:
    """Read the weights of a GPTQ checkpoint.

    Raises:
        CheckpointError: settings and tensors contradict each other.
        UnsupportedError: the settings name a layout that is not read.
    """
    stored_format = _format(settings)
    refuse(settings, "is_marlin_format", (False,), "the layout of the Marlin kernel")
    refuse(settings, "pack_dtype", ("int32", "torch.int32"), "another type of words")
    refuse(settings, "adapter", (), "an adapter beside the weights")
    refuse(settings, "rotation", (), "rotated activations")
    bits, sizes = overridden(settings, _overrides(settings))
    check_bits(settings, bits, BITS)
    scheme = Scheme(
        format="GPTQ" if stored_format == V1 else "GPTQ v2",
        where=settings.where,
        bits=bits,
        group_sizes=sizes,
        zero_points=_zero_points(settings, stored_format),
        act_order=settings.boolean("desc_act") is True,
    )
    return packed_weights(store, scheme, folder)


def refuse(settings: JSONFields, key: str, neutral: tuple[object, ...], what: str) -> None:
    """Check that a key is absent, or has a value that changes nothing.

    Raises:
        UnsupportedError: it has another value; ``what`` says what it means.
    """
    value = settings.get(key)
    if value is not None and value not in neutral:
        raise UnsupportedError(f"{settings.where}: {key} = {shown(value)} ({what}) is not supported; {REMEDY}")


def overridden(settings: JSONFields, overrides: Iterator[JSONFields]) -> tuple[frozenset[int], frozenset[int]]:
    """Return the bits and the group sizes that occur, by the settings and those of single modules.

    Raises:
        CheckpointError: one is missing or out of range.
    """
    bits = {_bits(settings)}
    sizes = {_group_size(settings)}
    for fields in overrides:
        if "bits" in fields:
            bits.add(_bits(fields))
        if "group_size" in fields:
            sizes.add(_group_size(fields))
    return frozenset(bits), frozenset(sizes)


def check_bits(settings: JSONFields, bits: frozenset[int], read: tuple[int, ...]) -> None:
    """Check that all bits are among those that are read.

    Raises:
        UnsupportedError: some are not.
    """
    for other in sorted(bits - set(read)):
        raise UnsupportedError(
            f"{settings.where}: {other} bits are not read in this format (those that are: "
            f"{', '.join(str(one) for one in read)}); {REMEDY}"
        )


def _format(settings: JSONFields) -> str:
    """Return the layout that the settings name, by the older key or the newer one."""
    named = {key: settings.text(key) for key in ("checkpoint_format", "format") if key in settings}
    layouts = {name.lower() for name in named.values() if name is not None} or {V1}
    if len(layouts) > 1:
        raise CheckpointError(f"{settings.where}: checkpoint_format and format contradict each other: {named}")
    layout = layouts.pop()
    if layout not in (V1, V2):
        key = next(iter(named))
        raise UnsupportedError(
            f"{settings.where}: {key} = {shown(layout)} is a layout that is not read (those that are: {V1}, {V2}); "
            f"{REMEDY}, or convert it with the library that wrote it"
        )
    return layout


def _zero_points(settings: JSONFields, stored_format: str) -> ZeroPoints:
    """Return how zero points are stored. Only a zero point of 0 tells the writers of the older format apart."""
    if stored_format == V2:
        return "stored"
    meta = settings.fields("meta")
    quantizers = meta.get("quantizer", "") if meta is not None else ""
    names = quantizers if isinstance(quantizers, list) else [quantizers]
    by_gptqmodel = any(isinstance(name, str) and name.startswith("gptqmodel") for name in names)
    return "one less, in words" if by_gptqmodel else "one less, wrapped"


def _overrides(settings: JSONFields) -> Iterator[JSONFields]:
    """Yield the settings of modules by a pattern of their names; a pattern with ``-:`` leaves modules as they are."""
    dynamic = settings.fields("dynamic")
    if dynamic is None:
        return
    for pattern, values in dynamic.values.items():
        if pattern.startswith("-:"):
            continue
        if not isinstance(values, Mapping):
            raise CheckpointError(f"{dynamic.where}: {pattern} is {shown(values)}, expected an object")
        fields = JSONFields(values, f"{dynamic.where}: {pattern}")
        for key, neutral in (("adapter", ()), ("format", (V1, V2)), ("method", ("gptq",)), ("quant_method", ("gptq",))):
            refuse(fields, key, neutral, "other weights than those around them")
        yield fields


def _bits(fields: JSONFields) -> int:
    bits = fields.integer("bits", least=1, most=64)
    if bits is None:
        raise fields.bad("bits", "a whole number")
    return bits


def _group_size(fields: JSONFields) -> int:
    size = fields.get("group_size")
    if not is_integer(size, -1, MOST_COLUMNS) or size == 0:
        raise fields.bad("group_size", "-1 or a positive whole number")
    return int(size)
