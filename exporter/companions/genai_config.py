"""genai_config.json, by which onnxruntime-genai opens an artifact of text generation.

All of it follows from the manifest, the graph's contract and the settings of generation. Source of the fields and their
meaning: onnxruntime-genai 0.18, ``src/config.h`` and ``src/config.cpp``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...artifact import ModelFacts, Target
from ...contract import ATTENTION_MASK, INPUT_IDS, LOGITS, PAST, PRESENT
from ...files.generation_settings import CONFIG, CheckpointSettings, checkpoint_settings, own_settings
from ...files.json_fields import is_integer
from ...files.json_file import read_object

TYPES: Mapping[str, str] = {"qwen2": "qwen2"}
"""Model types by family. Other families are "decoder", genai's type for any decoder with a KV cache: the type decides
which inputs genai feeds, and both get the same ones."""

EXTRA_SEARCH: Mapping[str, Any] = {"min_length": 0, "no_repeat_ngram_size": 0, "num_beams": 1, "length_penalty": 1.0}
"""Settings beside those of sampling that genai has by transformers' names, and the values that switch them off."""


def genai_config(folder: Path, model: ModelFacts, family: str, target: Target, graph: str) -> str:
    """Return the text of an artifact's genai_config.json.

    Args:
        folder: the artifact, with config.json and generation_config.json in it.
        graph: the graph's path in the folder.

    Raises:
        ValueError: config.json or generation_config.json cannot be read.
    """
    settings = checkpoint_settings(folder, model.vocab_size)
    config = {
        "model": {
            "type": TYPES.get(family, "decoder"),
            **_token_ids(folder, model, settings),
            "vocab_size": model.vocab_size,
            "context_length": model.context_length,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": graph,
                "hidden_size": model.hidden_size,
                "head_size": model.head_dim,
                "num_attention_heads": model.num_attention_heads,
                "num_key_value_heads": model.num_key_value_heads,
                "num_hidden_layers": model.num_hidden_layers,
                "inputs": {
                    "input_ids": INPUT_IDS,
                    "attention_mask": ATTENTION_MASK,
                    "past_key_names": f"{PAST}%d.key",
                    "past_value_names": f"{PAST}%d.value",
                },
                "outputs": {
                    "logits": LOGITS,
                    "present_key_names": f"{PRESENT}%d.key",
                    "present_value_names": f"{PRESENT}%d.value",
                },
            },
        },
        "search": _search(model, settings) | {"past_present_share_buffer": target == "ort"},
    }
    return json.dumps(config, indent=2) + "\n"


def _token_ids(folder: Path, model: ModelFacts, settings: CheckpointSettings) -> dict[str, Any]:
    """Return the special tokens.

    genai masks the tokens at the end of a prompt in a batch that equal ``pad_token_id``, and takes 0 for an id that it
    is not given. So a model without a padding token gets its first end token, as in transformers' ``generate``, and a
    model that has no end token gets the last token of the vocabulary for both: ids that no prompt ends with.
    """
    own, config = own_settings(folder)[1], read_object(folder / CONFIG)

    def named(key: str) -> list[int]:
        found = (own.get(key), config.get(key))
        return [value for value in found if is_integer(value, 0, model.vocab_size - 1)]

    unused = model.vocab_size - 1
    ends = settings.end_tokens or (unused,)
    ids = {"pad_token_id": [*named("pad_token_id"), ends[0]][0], "eos_token_id": list(ends)}
    beginning = named("bos_token_id")
    return {"bos_token_id": beginning[0], **ids} if beginning else ids


def _search(model: ModelFacts, settings: CheckpointSettings) -> dict[str, Any]:
    """Return the settings of generation that genai has.

    What a checkpoint does not set is off, as in intaglio's runtime, and not what genai would take (``top_k`` 50).
    """
    values = settings.values
    samples = values["temperature"] > 0 if "temperature" in values else False
    search: dict[str, Any] = {
        "do_sample": samples,
        "temperature": values["temperature"] if samples else 1.0,
        "top_k": min(values.get("top_k", 0), model.vocab_size),
        "top_p": values.get("top_p", 1.0),
        "repetition_penalty": values.get("repetition_penalty", 1.0),
        "max_length": min(values.get("max_length", model.context_length), model.context_length),
    }
    search |= {name: values.get(name, off) for name, off in EXTRA_SEARCH.items()}
    return search | {"early_stopping": values.get("early_stopping") is True}
