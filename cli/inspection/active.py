"""What computes one token of a mixture of experts: its parameters, and the bytes of weights that are read for it.

A token is computed by everything but the experts of a layer that it does not choose. Of an embedding it reads one row,
unless the embedding is the LM head too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ...artifact import Manifest
from ...files.json_file import read_object
from .weights import stored_bytes

EXPERTS, EMBEDDING, LM_HEAD = "experts", "embedding", "LM head"
PARTS: Mapping[str, str] = {
    ".self_attn.": "attention",
    ".mlp.experts.": EXPERTS,
    ".mlp.shared_expert.": "shared expert",
    ".mlp.gate.": "routers",
    ".mlp.shared_expert_gate.": "routers",
    ".mlp.": "MLP",
    ".embed_tokens.": EMBEDDING,
    ".lm_head.": LM_HEAD,
}
"""The parts of a model by what their tensors' names have, the first that fits; what fits none is ``OTHER``."""
OTHER = "other"


@dataclass(frozen=True)
class Mixture:
    """``layers`` with experts, ``count`` experts in each, of which a token chooses ``chosen``."""

    layers: int
    count: int
    chosen: int


def part_of(name: str) -> str:
    """Return the part of the model that a tensor belongs to."""
    return next((part for key, part in PARTS.items() if key in f".{name}."), OTHER)


def active(sizes: Mapping[str, int], mixture: Mixture) -> dict[str, int]:
    """Return what one token takes of each part; ``sizes`` are those of the tensors, in elements or in bytes."""
    found: dict[str, int] = {}
    for name, size in sizes.items():
        part = part_of(name)
        found[part] = found.get(part, 0) + size
    if EXPERTS in found:
        found[EXPERTS] = found[EXPERTS] * mixture.chosen // mixture.count
    return found


def read_bytes(sizes: Mapping[str, int], mixture: Mixture) -> dict[str, int]:
    """Return the bytes that one token reads of each part, from those of the tensors of a causal LM or another model.

    The embedding is the LM head where no tensor is one.
    """
    found = active(sizes, mixture)
    embedding = found.pop(EMBEDDING, 0)
    found.setdefault(LM_HEAD, embedding)
    return found


def artifact_mixture(path: Path, manifest: Manifest) -> Mixture | None:
    """Return the mixtures of an artifact, from its config.json; None if it has none, or the file cannot be read."""
    layers = {name.split(".mlp.experts.")[0] for name in manifest.tensors if ".mlp.experts." in name}
    if not layers:
        return None
    try:
        config = read_object(path / "config.json")
    except (OSError, ValueError):
        return None
    count, chosen = (config.get(key) for key in ("num_experts", "num_experts_per_tok"))
    if not isinstance(count, int) or not isinstance(chosen, int) or not 1 <= chosen <= count:
        return None
    return Mixture(len(layers), count, chosen)


def artifact_bytes(manifest: Manifest, mixture: Mixture) -> dict[str, int]:
    """Return the bytes of stored weights that one token reads of each part."""
    sizes = {name: stored_bytes(entry, manifest.target) for name, entry in manifest.tensors.items()}
    found = read_bytes(sizes, mixture)
    if manifest.task != "text-generation" and not any(part_of(name) == LM_HEAD for name in sizes):
        del found[LM_HEAD]  # the embedding, of which one row is read
    return found


def experts_of_artifact(path: Path, manifest: Manifest) -> dict[str, Any]:
    """Return the facts on mixtures that ``inspect`` shows of an artifact; empty where there are none."""
    mixture = artifact_mixture(path, manifest)
    if mixture is None:
        return {}
    elements = {name: prod(entry.shape) for name, entry in manifest.tensors.items() if entry.sources}
    return describe(mixture, elements) | {"bytes read per token": sum(artifact_bytes(manifest, mixture).values())}


def describe(mixture: Mixture, elements: Mapping[str, int]) -> dict[str, int]:
    """Return the sizes of mixtures, and how many parameters compute a token; ``elements`` of each tensor."""
    return {
        "layers with experts": mixture.layers,
        "experts of a layer": mixture.count,
        "experts of a token": mixture.chosen,
        "active parameters": sum(active(elements, mixture).values()),
    }
