"""The format of a checkpoint's quantized weights: ``quantization_config`` in its config.json, or ``quantization``."""

from collections.abc import Callable, Mapping
from pathlib import Path

from ...errors import CheckpointError, UnsupportedError
from ...files.json_fields import JSONFields, shown
from ...files.json_file import read_object
from ..storage.store import TensorStore
from . import mlx
from .auto_round import read_auto_round
from .awq import read_awq
from .bitsandbytes import read_bitsandbytes
from .compressed_tensors import read_compressed_tensors
from .fp8 import read_fp8, read_modelopt, read_plain_fp8
from .gptq import read_gptq
from .packed.members import modules
from .torchao import read_torchao
from .weights import QuantizedWeights

KEY = "quantization_config"
OLDER_KEY = "compression_config"
"""The key of compressed-tensors before transformers read it."""
METHOD = "quant_method"

Reader = Callable[[JSONFields, TensorStore, Path], QuantizedWeights]
"""Reads the weights of one format, from its settings in config.json, the stored tensors, and the folder.

Raises CheckpointError where settings and tensors contradict each other, UnsupportedError where it cannot read them. A
ValueError of the settings is turned into a CheckpointError.
"""

READERS: Mapping[str, Reader] = {
    "auto-round": read_auto_round,
    "awq": read_awq,
    "bitsandbytes": read_bitsandbytes,
    "compressed-tensors": read_compressed_tensors,
    "fbgemm_fp8": read_fp8,
    "fp8": read_fp8,
    "gptq": read_gptq,
    "intel/auto-round": read_auto_round,
    "modelopt": read_modelopt,
    "torchao": read_torchao,
}
"""The readers by ``quant_method``."""

UNREAD: Mapping[str, str] = {
    "aqlm": "AQLM, sums of codebook entries",
    "bitnet": "BitNet, ternary weights for activations in int8",
    "eetq": "EETQ, int8 in the order of a GPU's kernel",
    "fp_quant": "FP-Quant, FP4 for rotated activations",
    "higgs": "HIGGS, codebooks for rotated weights",
    "hqq": "HQQ, codes with float zero points",
    "mxfp4": "MXFP4 of experts, as gpt-oss has it",
    "quanto": "Quanto, tensors of optimum-quanto",
    "quark": "Quark, AMD's quantizer",
    "sinq": "SINQ, codes with scales for rows and columns",
    "spqr": "SpQR, codes with sparse outliers",
    "vptq": "VPTQ, codebooks of vectors",
}
"""Methods of transformers that are not read, in words."""

OWN_FILES: Mapping[str, Reader] = {"quantize_config.json": read_gptq, "quant_config.json": read_awq}
"""Files that hold the settings where config.json has none, as AutoGPTQ and AutoAWQ wrote them at first."""


def read_quantized(config: JSONFields, store: TensorStore, folder: Path) -> QuantizedWeights | None:
    """Return the quantized weights of a checkpoint; None where it has none.

    Args:
        config: config.json.

    Raises:
        CheckpointError: its settings or its tensors are damaged.
        UnsupportedError: the format is not read.
    """
    try:
        return _read(config, store, folder)
    except ValueError as error:  # of JSONFields
        raise CheckpointError(f"{error}; fetch it again") from None


def _read(config: JSONFields, store: TensorStore, folder: Path) -> QuantizedWeights | None:
    if (settings := config.fields(mlx.KEY)) is not None:  # mlx-lm repeats it as quantization_config
        return mlx.read_mlx(settings, store, folder)
    settings = config.fields(KEY) or config.fields(OLDER_KEY)
    if settings is None:
        return _older(store, folder) or read_plain_fp8(store, folder)
    method = settings.text(METHOD) or settings.text("method")
    if method is None:
        raise CheckpointError(f"{settings.where} has no {METHOD}; fetch config.json again")
    if method not in READERS:
        known = ", ".join(sorted(READERS))
        what = f" ({UNREAD[method]})" if method in UNREAD else ""
        raise UnsupportedError(
            f"{settings.where}: {METHOD} is {shown(method)}{what}, a format that is not read (those that are: "
            f"{known}); export the checkpoint that it was made from, with --precision int8 or int4 for a small artifact"
        )
    return READERS[method](settings, store, folder)


def _older(store: TensorStore, folder: Path) -> QuantizedWeights | None:
    """Read packed weights whose settings are in a file of their own."""
    packed = modules(store.tensors)
    if not packed:
        return None
    for name, reader in OWN_FILES.items():
        if (folder / name).is_file():
            return reader(JSONFields(read_object(folder / name), str(folder / name)), store, folder)
    raise CheckpointError(
        f"{folder}: {packed[0]}qweight is a quantized weight, and neither config.json has a {KEY} nor is there a "
        f"{' or '.join(OWN_FILES)}; fetch the checkpoint again"
    )
