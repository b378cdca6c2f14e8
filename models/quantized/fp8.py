"""Weights in FP8 (E4M3 or E5M2) with scales beside them: ``weight_scale_inv`` or ``weight_scale``.

The forms that are published under the ``quant_method`` fp8, fbgemm_fp8 and modelopt, and files without one:

    blocks     weight_scale_inv [ceil(N / height), ceil(K / width)], weight_block_size in config.json
    rows       weight_scale [N, 1] or [N]
    one scale  weight_scale [] or [1]
    no scale   the numbers as they are

Despite its name ``weight_scale_inv`` is multiplied with the stored numbers, as transformers' FineGrainedFP8 does
(https://huggingface.co/docs/transformers/quantization/finegrained_fp8) and as DeepSeek-V3 published it.
"""

import math
from pathlib import Path

from ...errors import CheckpointError, UnsupportedError
from ...files.json_fields import JSONFields, shown
from ..storage.store import TensorStore
from ..weight_source import TensorInfo
from .scaled.stored import FLOAT8, FLOATS, REMEDY, matrix, member
from .scaled.tables import as_float, block_table, power_of_two
from .scaled.weights import Float8Weight
from .stored import stored_bytes
from .weights import QuantizedWeights

SCALES = ("weight_scale_inv", "weight_scale")
ACTIVATION_PARTS = (
    "input_scale",
    "input_scale_ub",
    "activation_scale",
    "output_scale",
    "k_scale",
    "v_scale",
    "q_scale",
    "kv_scale",
)
MOST_BLOCK = 2**20
FP8_OF_MODELOPT = "FP8"


def read_fp8(settings: JSONFields, store: TensorStore, folder: Path) -> QuantizedWeights:
    """Read a checkpoint in FP8; errors as ``Reader``."""
    block = settings.integers("weight_block_size", least=1, most=MOST_BLOCK)
    if block is not None and len(block) != 2:
        raise settings.bad("weight_block_size", "two whole numbers of at least 1, rows and columns")
    return _read(store, None if block is None else (block[0], block[1]), folder, scaled=True)


def read_modelopt(settings: JSONFields, store: TensorStore, folder: Path) -> QuantizedWeights:
    """Read a checkpoint of NVIDIA's ModelOpt in FP8, with one scale for each weight; errors as ``Reader``."""
    algorithm = settings.text("quant_algo")
    if algorithm != FP8_OF_MODELOPT:
        raise UnsupportedError(
            f"{settings.where}: quant_algo is {shown(algorithm)}, which is not read (of ModelOpt's, "
            f"{FP8_OF_MODELOPT} is); export the checkpoint that it was made from"
        )
    return _read(store, None, folder, scaled=True)


def read_plain_fp8(store: TensorStore, folder: Path) -> QuantizedWeights | None:
    """Read a checkpoint that has weights in FP8 and no ``quantization_config``; None where it has none."""
    if not any(info.dtype in FLOAT8 for info in store.tensors.values()):
        return None
    return _read(store, None, folder, scaled=False)


def _read(store: TensorStore, block: tuple[int, int] | None, folder: Path, *, scaled: bool) -> QuantizedWeights:
    """Read all weights in FP8.

    Args:
        block: the rows and columns that share a scale.
        scaled: config.json says that weights have scales.
    """
    weights = {}
    taken: set[str] = set()
    for name, info in store.tensors.items():
        if info.dtype not in FLOAT8:
            continue
        module, _, part = name.rpartition(".")
        if part != "weight" or len(info.shape) != 2:
            raise UnsupportedError(
                f"{info.file}: tensor {name} {list(info.shape)} is stored in FP8, which is read for matrices only; "
                "store it in bfloat16"
            )
        scales = [scale for one in SCALES if (scale := f"{module}.{one}") in store.tensors]
        if len(scales) > 1:
            raise CheckpointError(f"{info.file}: tensor {name} has two scales, {' and '.join(scales)}; {REMEDY}")
        if not scales and scaled:
            member(store, f"{module}.{SCALES[block is None]}", FLOATS, "FP8")
        weights[name] = _weight(store, name, scales[0] if scales else None, block)
        taken |= {name, *scales}
    for name, info in store.tensors.items():
        if name.rpartition(".")[2] in SCALES and name not in taken:
            raise CheckpointError(f"{info.file}: tensor {name} is the scale of a weight that is not in FP8; {REMEDY}")
    if not weights:
        raise CheckpointError(
            f"{folder / 'config.json'}: quantization_config says FP8, and no tensor has this dtype; {REMEDY}, or "
            "remove the key if the weights are not quantized"
        )
    taken |= {name for name in store.tensors if name.rpartition(".")[2] in ACTIVATION_PARTS}
    note = "the weights' FP8 is read; activations are computed in float, without the checkpoint's FP8 for them"
    return QuantizedWeights(weights, frozenset(taken), (note,) if scaled else ())


def _weight(store: TensorStore, name: str, scale: str | None, block: tuple[int, int] | None) -> Float8Weight:
    info = store.tensors[name]
    shape = matrix(info, name)
    scales, width, words = None, shape[1], "no scales"
    if scale is not None:
        held = member(store, scale, (*FLOATS, "U8", "F8_E8M0"), "FP8")
        if math.prod(held.shape) == 1:
            size, words = shape, "one scale"
        elif held.shape in ((shape[0],), (shape[0], 1)):
            size, words = (1, shape[1]), "a scale for each row"
        elif block is None:
            raise CheckpointError(
                f"{held.file}: tensor {scale} has the shape {list(held.shape)}, neither one scale nor one for each row "
                f"of {list(shape)}, and config.json has no weight_block_size; {REMEDY}"
            )
        else:
            size = (min(block[0], shape[0]), min(block[1], shape[1]))
            words = f"blocks of {block[0]} x {block[1]}"
        scales = block_table(store, scale, shape, size, power_of_two if held.dtype == "U8" else as_float)
        width = size[1]
    return Float8Weight(
        info=TensorInfo(info.file, "F32", shape),
        format=f"FP8 ({info.dtype.removeprefix('F8_')}), {words}",
        stored_bytes=stored_bytes(store.tensors[one] for one in ([name] if scale is None else [name, scale])),
        store=store,
        name=name,
        width=width,
        scales=scales,
    )
