"""The model that a checkpoint of another format stands for, run by transformers in float32."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from intaglio.models.checkpoint import Checkpoint
from safetensors.torch import load_file
from torch import Tensor, nn

TEXTS, TOKENS = 4, 20
"""The number and the length of the texts: beyond the window of the hybrid family's sliding layers."""

QUANTIZATION_KEYS = ("quantization_config", "quantization", "compression_config")


def token_ids(vocabulary: int = 288) -> Tensor:
    """Return random ids [B, S], none of them special."""
    return torch.randint(3, vocabulary, (TEXTS, TOKENS), generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Reference:
    """The logits [B, S, V] of transformers' model with float32 weights, computed in float64.

    ``noise`` is how far the same model is from them when it computes in float32, as a fraction of the largest.
    """

    logits: Tensor
    noise: float

    def difference(self, found: Tensor) -> float:
        """Return the largest difference of other logits, as a fraction of the largest."""
        return float((found - self.logits).abs().max() / self.logits.abs().max())


def reference(source: Path, weights: Mapping[str, Tensor]) -> Reference:
    """Run transformers' model with the dequantized weights.

    Args:
        weights: the quantized weights, dequantized; every other tensor is that of the files.
    """
    values = _config(source)
    for key in QUANTIZATION_KEYS:
        values.pop(key, None)
    kind = getattr(transformers, values["architectures"][0])
    model = kind(kind.config_class.from_dict(values, attn_implementation="eager")).eval().float()
    wanted = model.state_dict()
    plain = _plain_tensors(source)
    tied = values["tie_word_embeddings"]
    state = {}
    for name in wanted:
        if tied and name == "lm_head.weight":
            continue
        tensor = weights[name] if name in weights else plain[name]
        state[name] = tensor.reshape(wanted[name].shape).float()
    left = model.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    assert set(left.missing_keys) <= {"lm_head.weight"}
    model.tie_weights()
    ids = token_ids(values["vocab_size"])
    single, double = logits_of(model, ids), logits_of(model.double(), ids)
    return Reference(double, Reference(double, 0.0).difference(single))


def _config(source: Path) -> dict[str, Any]:
    folder = source
    if not source.is_dir():  # the metadata of a GGUF file, as intaglio reads it
        checkpoint = Checkpoint(source)
        folder = checkpoint.folder
    values: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return values


def logits_of(model: nn.Module, ids: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(ids, use_cache=False).logits
    return logits


def _plain_tensors(source: Path) -> Mapping[str, Tensor]:
    """Return the tensors of a checkpoint's files by their names there; those that intaglio reads for other files."""
    if source.is_dir():
        found: dict[str, Tensor] = {}
        for file in sorted(source.glob("*.safetensors")):
            found |= load_file(file)
        return found
    checkpoint = Checkpoint(source)
    return {name: checkpoint.tensor(name) for name in checkpoint.tensors if name not in checkpoint.quantized}
