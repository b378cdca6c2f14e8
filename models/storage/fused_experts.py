"""Experts whose weights are one tensor for all of a layer, read as a matrix for each.

transformers 5 holds them so, and writes them so with ``save_pretrained(..., save_original_format=False)``:
``mlp.experts.gate_up_proj`` [X, 2F, D], with the rows of gate before those of up, and ``mlp.experts.down_proj``
[X, D, F] (transformers/models/qwen2_moe/modeling_qwen2_moe.py). By default it writes a matrix for each expert.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ...errors import CheckpointError, UnsupportedError
from ..config import ModelConfig
from ..dtypes import SAFETENSORS_DTYPES
from ..weight_source import TensorInfo
from .safetensors_files import SafetensorsFiles, read_slice

GATE_UP, DOWN = ".mlp.experts.gate_up_proj", ".mlp.experts.down_proj"
NOTE = "the experts of a layer are stored in one tensor; they are read one by one"
REMEDY = "load the model with transformers, and save it with save_pretrained"


@dataclass(frozen=True)
class _Part:
    """A matrix in a tensor of all experts: the ``rows`` of an ``expert``."""

    stored: str
    expert: int
    rows: range


class FusedExperts:
    """The tensors of files, with a matrix for each expert in the place of those of all; ``note`` says so to users."""

    def __init__(self, files: SafetensorsFiles, config: ModelConfig) -> None:
        """Check the tensors of all experts.

        Raises:
            CheckpointError: one has another shape than config.json says, or an expert is stored by itself too.
            UnsupportedError: one is transposed, or not of a float type.
        """
        self._files = files
        self._parts: dict[str, _Part] = {}
        self.tensors: Mapping[str, TensorInfo] = files.tensors
        self.note: str | None = None
        fused = [name for name in files.tensors if f".{name}".endswith((GATE_UP, DOWN))]
        if config.experts is None or not fused:
            return
        tensors = {name: info for name, info in files.tensors.items() if name not in fused}
        for stored in fused:
            info = files.tensors[stored]
            _check(stored, info, config)
            for name, part in _parts(stored, info).items():
                if name in tensors:
                    raise CheckpointError(
                        f"{info.file}: {stored} holds all experts of its layer, and {name} is there too; remove the "
                        "one that does not count"
                    )
                self._parts[name] = part
                tensors[name] = TensorInfo(info.file, info.dtype, (len(part.rows), info.shape[2]))
        self.tensors = tensors
        self.note = NOTE

    def read(self, name: str, rows: range | None = None, columns: range | None = None) -> Tensor:
        part = self._parts.get(name)
        if part is None:
            return self._files.read(name, rows, columns)
        down = part.rows if rows is None else part.rows[rows.start : rows.stop]
        return read_slice(self._files.tensors[part.stored].file, part.stored, part.expert, down, columns)


def _check(name: str, info: TensorInfo, config: ModelConfig) -> None:
    experts = config.experts
    assert experts is not None
    if info.dtype not in SAFETENSORS_DTYPES:
        raise UnsupportedError(
            f"{info.file}: tensor {name} holds all experts of its layer as {info.dtype}; supported are "
            f"{', '.join(SAFETENSORS_DTYPES)}: use the checkpoint before it was quantized"
        )
    rows, columns = 2 * experts.size, config.hidden_size
    if f".{name}".endswith(DOWN):
        rows, columns = config.hidden_size, experts.size
    if info.shape == (experts.count, rows, columns):
        return
    if info.shape == (experts.count, columns, rows):
        raise UnsupportedError(
            f"{info.file}: tensor {name} has the shape {list(info.shape)}: the experts are transposed, and "
            f"[{experts.count}, {rows}, {columns}] is read; {REMEDY}"
        )
    raise CheckpointError(
        f"{info.file}: tensor {name} has the shape {list(info.shape)}, expected [{experts.count}, {rows}, {columns}] "
        "from config.json; the config and the weights belong to different models"
    )


def _parts(stored: str, info: TensorInfo) -> dict[str, _Part]:
    """Return the matrices in a tensor of all experts, by their names."""
    count, rows, _ = info.shape
    prefix, _, leaf = stored.rpartition(".")
    spans = {"down_proj": range(rows)}
    if leaf != "down_proj":
        spans = {"gate_proj": range(rows // 2), "up_proj": range(rows // 2, rows)}
    return {
        f"{prefix}.{expert}.{name}.weight": _Part(stored, expert, span)
        for expert in range(count)
        for name, span in spans.items()
    }
