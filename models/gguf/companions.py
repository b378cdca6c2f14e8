"""What a checkpoint folder has beside its weights, written from the metadata of a GGUF file.

Everything that reads a checkpoint's companions then reads those of a GGUF file too.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...artifact import TEMPLATE_FOLDER
from ...errors import CheckpointError
from ...files.generation_settings import FILE as GENERATION
from ...files.json_fields import shown
from ...files.special_tokens import CONFIG as TOKENIZER_CONFIG
from ...files.tokenizer_file import FILE as TOKENIZER
from .config import POOLINGS
from .parts import Metadata
from .rope import number
from .tokenizer import PREFIX, check_tokenizer, read_tokenizer

TEMPLATE = "tokenizer.chat_template"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""A chat template's name, which becomes that of a file."""

ENDS = ("<|im_end|>", "<|endoftext|>", "[|endofturn|]", "[EOS]")
"""Control tokens of these families that end a text wherever they occur, as in llama.cpp."""

SAMPLING: Mapping[str, str] = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}
"""Keys of ``general.sampling``, and what generation_config.json calls them."""


def write_companions(metadata: Metadata, family: str, config: Mapping[str, Any], folder: Path) -> list[str]:
    """Write the files into an empty folder; return notes.

    Raises:
        CheckpointError, UnsupportedError: as ``read_tokenizer``; or a chat template has a name that no file can have.
    """
    tokenizer, tokenizer_config, control, notes = read_tokenizer(metadata, family)
    _write(folder / "config.json", config)
    if tokenizer is not None:
        text = json.dumps(tokenizer, ensure_ascii=False)
        check_tokenizer(text, metadata.where)
        (folder / TOKENIZER).write_text(text, encoding="utf-8")
        _write(folder / TOKENIZER_CONFIG, tokenizer_config)
    for name, template in _templates(metadata).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(template, encoding="utf-8", newline="")
    if generation := _generation(metadata, control):
        _write(folder / GENERATION, generation)
    if pooling := POOLINGS.get(metadata.integer(f"{family}.pooling_type") or 0):
        _write_modules(folder, pooling)
    _write_card(metadata, folder)
    return notes


def _write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _templates(metadata: Metadata) -> dict[str, str]:
    """Return chat templates by the names of their files."""
    found = {}
    for key in metadata.values:
        name = key.removeprefix(f"{TEMPLATE}.")
        if key == TEMPLATE:
            found["chat_template.jinja"] = metadata.text(key) or ""
        elif name != key:
            if not NAME.fullmatch(name):
                raise CheckpointError(f"{metadata.where}: a chat template has the name {shown(name)}; rename it")
            found[f"{TEMPLATE_FOLDER}/{name}.jinja"] = metadata.text(key) or ""
    return found


def _generation(metadata: Metadata, control: Mapping[str, int]) -> dict[str, Any]:
    """Return the settings of generation: the ids of tokens, and recommended sampling."""
    ends = [metadata.integer(f"{PREFIX}{name}_token_id", least=0) for name in ("eos", "eot", "eom")]
    ids = dict.fromkeys([*(end for end in ends if end is not None), *(control[end] for end in ENDS if end in control)])
    settings: dict[str, Any] = {}
    for name, key in (("bos_token_id", "bos_token_id"), ("pad_token_id", "padding_token_id")):
        if (token := metadata.integer(PREFIX + key, least=0)) is not None:
            settings[name] = token
    if ids:
        settings["eos_token_id"] = list(ids)
    sampling = {name: number(metadata, f"general.sampling.{key}") for key, name in SAMPLING.items()}
    given = {name: value for name, value in sampling.items() if value is not None}
    if "top_k" in given:
        given["top_k"] = int(given["top_k"])
    if given:
        settings |= {"do_sample": given.get("temperature") != 0, **given}
    return settings


def _write_modules(folder: Path, pooling: str) -> None:
    """Write the modules of sentence-transformers that make an embedding as llama.cpp does: pooled, and of length 1."""
    names = ("Transformer", "Pooling", "Normalize")
    paths = ("", "1_Pooling", "2_Normalize")
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{name}"}
        for index, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    _write(folder / "modules.json", modules)
    (folder / "1_Pooling").mkdir()
    _write(folder / "1_Pooling" / "config.json", {"pooling_mode": pooling})


def _write_card(metadata: Metadata, folder: Path) -> None:
    """Write a model card that declares the licence and the languages, if the metadata does."""
    declared = {
        "license": metadata.get("general.license"),
        "license_name": metadata.get("general.license.name"),
        "license_link": metadata.get("general.license.link"),
        "language": metadata.get("general.languages"),
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in declared.items() if isinstance(value, str | list)]
    if lines:
        (folder / "README.md").write_text("\n".join(["---", *lines, "---", ""]), encoding="utf-8")
