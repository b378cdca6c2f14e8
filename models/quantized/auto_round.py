"""Checkpoints of auto-round, which stores its weights as GPTQ or AWQ do.

``packing_format``, in older files ``backend``, names the layout. With ``gptq`` in its name, zero points are stored less
one and never wrap; with ``awq``, it is that of AWQ; otherwise it is that of GPTQ with zero points as they are. A
``g_idx`` is seldom there.

Source: https://github.com/intel/auto-round, inference/convert_model.py and its extension's QuantLinear.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from ...errors import CheckpointError, UnsupportedError
from ...files.json_fields import JSONFields, shown
from ..storage.store import TensorStore
from .gptq import REMEDY, check_bits, overridden, refuse
from .packed.members import Scheme, ZeroPoints
from .packed.weight import packed_weights
from .weights import QuantizedWeights

BITS = (2, 3, 4, 5, 6, 7, 8)
FLOAT_BITS = 16
PREFIXES = ("auto_round:", "autoround:", "auto-round:")
ONE_LESS = ("auto_gptq", "gptq", "gptq:exllamav2", "gptq:tritonv2", "gptq:cuda", "auto_gptq:exllamav2")
AS_THEY_ARE = ("", "gptqmodel", "exllamav2", "tritonv2", "triton", "torch")
AWQ = ("auto_awq", "awq", "awq:gemm", "auto_awq:gemm")


def read_auto_round(settings: JSONFields, store: TensorStore, folder: Path) -> QuantizedWeights:
    """Read the weights of a checkpoint of auto-round.

    Raises:
        CheckpointError: settings and tensors contradict each other.
        UnsupportedError: the settings name a layout that is not read, or quantized activations.
    """
    layout = _layout(settings)
    refuse(settings, "rotation_config", ({},), "rotated activations")
    refuse(settings, "spinquant_config", ({},), "rotated activations")
    _check_scheme(settings)
    bits, sizes = overridden(settings, _overrides(settings))
    awq = layout in AWQ
    check_bits(settings, bits, (4,) if awq else BITS)
    zero_points: ZeroPoints = "one less" if layout in ONE_LESS else "stored"
    scheme = Scheme("auto-round's AWQ" if awq else "auto-round", settings.where, bits, sizes, zero_points, awq=awq)
    return packed_weights(store, scheme, folder)


def _layout(settings: JSONFields) -> str:
    """Return the name of the layout, without auto-round's own name before it."""
    key = "packing_format" if "packing_format" in settings else "backend"
    named = settings.text(key) or "auto"
    layout = "auto_gptq" if named == "auto" else named.lower()
    for prefix in PREFIXES:
        layout = layout.removeprefix(prefix)
    if layout in ("auto_round", "autoround", "auto-round"):
        layout = ""
    if layout not in (*ONE_LESS, *AS_THEY_ARE, *AWQ):
        raise UnsupportedError(f"{settings.where}: {key} = {shown(named)} is a layout that is not read; {REMEDY}")
    return layout


def _check_scheme(fields: JSONFields) -> None:
    """Check that weights are whole numbers and that activations are not quantized."""
    refuse(fields, "data_type", ("int", "int_sym", "int_asym"), "another data type of weights")
    activations = fields.integer("act_bits", least=1)
    if activations is not None and activations < FLOAT_BITS:
        raise UnsupportedError(
            f"{fields.where}: act_bits = {activations} (quantized activations) is not supported; {REMEDY}"
        )
    refuse(fields, "super_bits", (), "quantized scales")


def _overrides(settings: JSONFields) -> Iterator[JSONFields]:
    """Yield the settings of modules by their names or a pattern; with 16 bits and more they are left as they are."""
    extra = settings.fields("extra_config")
    if extra is None:
        return
    for name, values in extra.values.items():
        if not isinstance(values, Mapping):
            raise CheckpointError(f"{extra.where}: {name} is {shown(values)}, expected an object")
        fields = JSONFields(values, f"{extra.where}: {name}")
        if (fields.integer("bits") or 0) < FLOAT_BITS:
            _check_scheme(fields)
            yield fields
