"""The inputs of an artifact's graph: token ids, the attention mask and the KV cache."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...artifact import Manifest
from ...contract import ATTENTION_MASK, CACHE_PARTS, INPUT_IDS, LOGITS_TO_KEEP, PAST
from ...models.ops import KeyValue
from .scenarios import Scenario


def graph_inputs(
    scenario: Scenario, manifest: Manifest, caches: Mapping[int, KeyValue | None]
) -> dict[str, NDArray[Any]]:
    """Return the graph's inputs for a scenario.

    Args:
        caches: the cached keys and values [B, K, P, E] by layer; a layer without them gets zeros of the same shape.
    """
    model = manifest.model
    shape = (len(scenario.ids), model.num_key_value_heads, scenario.past_length, model.head_dim)
    inputs: dict[str, NDArray[Any]] = {
        INPUT_IDS: np.ascontiguousarray(scenario.ids.numpy()),
        ATTENTION_MASK: _mask(scenario, manifest),
        LOGITS_TO_KEEP: np.array([0]),
    }
    zeros = np.zeros(shape, model.cache_dtype)
    for layer in range(model.num_hidden_layers):
        pair = caches.get(layer)
        for index, name in enumerate(CACHE_PARTS):
            array = pair[index].numpy().astype(model.cache_dtype) if pair is not None else zeros
            inputs[f"{PAST}{layer}.{name}"] = array
    return inputs


def _mask(scenario: Scenario, manifest: Manifest) -> NDArray[Any]:
    """Return the mask int64 [B, T]. After a cache, target ``ort`` reads its rows as lengths: ones and then zeros.

    Its cache holds a sequence without gaps, and a new token comes after the last of them, so that padding between the
    cache and the new tokens is not in the cache and in the mask comes last.
    """
    mask: NDArray[Any] = scenario.mask.numpy()
    cached = manifest.target == "ort" and scenario.past_length > 0
    return np.ascontiguousarray(-np.sort(-mask, axis=1)) if cached else mask


def prompt_inputs(manifest: Manifest, tokens: Tensor) -> dict[str, NDArray[Any]]:
    """Return the graph's inputs for tokens int64 [B, S] with an empty cache and without padding."""
    prompt = Scenario("prompt", "a prompt", tokens[:, :0], tokens, torch.ones_like(tokens))
    return graph_inputs(prompt, manifest, {})
