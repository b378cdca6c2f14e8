"""What ``/v1/models`` says about an artifact: OpenAI's keys, vLLM's ``max_model_len``, and more of its manifest."""

from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from ...artifact import MANIFEST
from ...errors import IntaglioError
from ...files.chat.template import read_chat_format
from ...files.tokenizer_file import named_tokens
from ..settings import Settings
from .loaded import ServedModel


def model_card(served: ServedModel, settings: Settings, *, loaded: bool) -> dict[str, Any]:
    """Return the card of an artifact. It reads files when it is first called for one."""
    manifest, model = served.manifest, served.manifest.model
    longest = settings.longest(model.context_length)
    return {
        "id": served.name,
        "object": "model",
        "created": _created(served.folder),
        "owned_by": "intaglio",
        "root": served.name,
        "parent": None,
        "max_model_len": longest,
        "context_length": longest,
        "task": manifest.task,
        "family": manifest.family,
        "precision": manifest.precision,
        "cache_dtype": model.cache_dtype,
        "target": manifest.target,
        "parity": {"verdict": manifest.parity.verdict},
        "source": {"id": manifest.source.id, "revision": manifest.source.revision},
        "labels": list(model.labels),
        "parameters": sum(prod(entry.shape) for entry in manifest.tensors.values() if entry.sources) or None,
        "bytes": sum(entry.size for entry in manifest.files.values()),
        "loaded": loaded,
        **(_chat(served.folder) if manifest.task == "text-generation" else NO_CHAT),
    }


NO_CHAT = {"chat": False, "thinking": False, "tools": False}


@lru_cache
def _created(folder: Path) -> int:
    """Return when the artifact was written, in seconds since 1970."""
    return int((folder / MANIFEST).stat().st_mtime)


@lru_cache
def _chat(folder: Path) -> dict[str, bool]:
    """Return what the artifact's chat template can do; nothing without one that can be used."""
    try:
        chat_format = read_chat_format(folder)
        if not chat_format.templates:
            return NO_CHAT
        thinks = any("<think>" in text for text in chat_format.templates.values())
        thinking = thinks or chat_format.reads("enable_thinking")
        return {"chat": True, "thinking": thinking, "tools": chat_format.reads("tools", with_tools=True)}
    except IntaglioError:
        return NO_CHAT


@lru_cache
def tokenizer_info(folder: Path) -> dict[str, Any]:
    """Return the special tokens of an artifact by name and its chat template, as ``/tokenizer_info`` of vLLM does."""
    tokens = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token")) | named_tokens(folder)
    template = read_chat_format(folder).templates.get("default")
    return {"tokenizer_class": "PreTrainedTokenizerFast", **tokens, "chat_template": template}
