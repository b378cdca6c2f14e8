"""The tokenizer of a GGUF file as tokenizer.json and tokenizer_config.json.

A file has the vocabulary, the merges and the types of tokens; the rest follows from the name of its pre-tokenizer
(llm_tokenizer_bpe in llama.cpp's llama-vocab.cpp). It has no normalizer: Qwen2's composes to NFC, as that of its own
tokenizer.json does.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ...errors import CheckpointError, UnsupportedError
from ...files.json_fields import shown
from ...files.library_errors import library_errors
from ...files.tokenizer_file import QWEN2_WORDS
from .parts import Metadata

PREFIX = "tokenizer.ggml."
MODEL, PRE, TOKENS = f"{PREFIX}model", f"{PREFIX}pre", f"{PREFIX}tokens"
TYPES, MERGES = f"{PREFIX}token_type", f"{PREFIX}merges"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_GPT2 = {**_BYTES, "use_regex": True}
_QWEN2 = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": QWEN2_WORDS}, "behavior": "Isolated", "invert": False},
        {**_BYTES, "use_regex": False},
    ],
}
NFC = {"type": "NFC"}
PRE_TOKENIZERS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any] | None]] = {
    "qwen2": (_QWEN2, NFC),
    "deepseek-r1-qwen": (_QWEN2, NFC),
    "exaone4": (_GPT2, None),
    "gpt-2": (_GPT2, None),
}
"""The pre-tokenizer and the normalizer by ``tokenizer.ggml.pre``. llama.cpp has GPT-2's words for exaone4."""
UNNAMED = (None, "default")
OF_ARCHITECTURES: Mapping[str, str] = {"qwen2moe": "qwen2"}
"""The pre-tokenizers of architectures whose name is not that of one."""

READ = frozenset(
    """model pre tokens token_type merges scores bos_token_id eos_token_id eot_token_id eom_token_id unknown_token_id
    padding_token_id seperator_token_id mask_token_id cls_token_id add_bos_token add_eos_token""".split()
)
INERT = frozenset(
    """add_space_prefix add_sep_token remove_extra_whitespaces precompiled_charsmap token_type_count
    prefix_token_id suffix_token_id middle_token_id fim_pre_token_id fim_suf_token_id fim_mid_token_id fim_pad_token_id
    fim_rep_token_id fim_sep_token_id""".split()
)
"""Of other tokenizers, or tokens that only name what is in the vocabulary."""

NAMES: Mapping[str, str] = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
    "sep_token": "seperator_token_id",
    "mask_token": "mask_token_id",
}
"""The keys of the tokens that tokenizer_config.json names."""
CLASSES: Mapping[str, str] = {
    "qwen2": "Qwen2Tokenizer",
    "qwen2moe": "Qwen2Tokenizer",
    "exaone4": "PreTrainedTokenizerFast",
}
PADDING = re.compile(r"\[PAD\d+\]")
"""What the conversion calls the rows of the embedding that have no token."""


def read_tokenizer(
    metadata: Metadata, family: str
) -> tuple[dict[str, Any] | None, dict[str, Any], dict[str, int], list[str]]:
    """Return tokenizer.json, tokenizer_config.json, the control tokens by text, and notes.

    Without a vocabulary there is no tokenizer.json.

    Raises:
        CheckpointError: the vocabulary is damaged.
        UnsupportedError: another kind of tokenizer.
    """
    model = metadata.text(MODEL)
    if model in (None, "none", "no_vocab"):
        return None, {}, {}, ["the file has no tokenizer"]
    if model != "gpt2":
        raise UnsupportedError(
            f"{metadata.where}: {MODEL} is {shown(model)}, and only gpt2 (byte-level BPE), that of these families, is "
            "read; use another file"
        )
    unknown = [
        key for key in metadata.values if key.startswith(PREFIX) and key.removeprefix(PREFIX) not in READ | INERT
    ]
    if unknown:
        raise UnsupportedError(
            f"{metadata.where}: metadata that may change how text is read, and is not known: "
            f"{', '.join(sorted(unknown)[:8])}; use another file"
        )
    pre, notes = metadata.text(PRE), []
    if pre in UNNAMED:
        pre = OF_ARCHITECTURES.get(family, family)
        notes.append(f"{PRE} does not name a pre-tokenizer: that of {pre} is taken")
    if pre not in PRE_TOKENIZERS:
        raise UnsupportedError(
            f"{metadata.where}: {PRE} is {shown(pre)}, a pre-tokenizer that is not known; known are "
            f"{', '.join(PRE_TOKENIZERS)}"
        )
    tokens, types = _vocabulary(metadata)
    added = [_added(number, token, types[number]) for number, token in enumerate(tokens) if types[number] in (3, 4)]
    named = {name: _named(metadata, key, tokens) for name, key in NAMES.items()}
    pre_tokenizer, normalizer = PRE_TOKENIZERS[pre]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": _surround(metadata, named),
        "decoder": {**_BYTES, "add_prefix_space": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens) if types[number] in (NORMAL, UNKNOWN, BYTE)},
            "merges": _merges(metadata),
        },
    }
    config: dict[str, Any] = {"tokenizer_class": CLASSES[family], "add_prefix_space": False, **named}
    control = {entry["content"]: entry["id"] for entry in added if entry["special"]}
    return tokenizer, config, control, notes


def check_tokenizer(text: str, where: str) -> None:
    """Check that ``tokenizers`` reads a tokenizer.json.

    Raises:
        CheckpointError: a merge is of tokens that the vocabulary does not have.
    """
    with library_errors(
        lambda reason: CheckpointError(f"{where}: its tokenizer is damaged ({reason}); fetch it again")
    ):
        Tokenizer.from_str(text)


def _vocabulary(metadata: Metadata) -> tuple[list[str], list[int]]:
    tokens = metadata.texts(TOKENS)
    if not tokens:
        raise metadata.bad(TOKENS, "a list of texts")
    types = metadata.get(TYPES)
    if types is None:
        raise metadata.bad(TYPES, "a list of whole numbers: without it, special tokens are not known")
    if not isinstance(types, np.ndarray) or types.dtype.kind not in "iu" or len(types) != len(tokens):
        raise CheckpointError(
            f"{metadata.where}: {TYPES} is not a list of {len(tokens):,} whole numbers, one for each token; fetch the "
            "file again"
        )
    if not set(np.unique(types).tolist()) <= {NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE}:
        raise CheckpointError(f"{metadata.where}: {TYPES} has types beyond 1 to 6; fetch the file again")
    kept = [token for token, kind in zip(tokens, types, strict=True) if kind != UNUSED]
    if len(set(kept)) != len(kept):
        seen: set[str] = set()
        twice = next(token for token in kept if token in seen or seen.add(token))  # type: ignore[func-returns-value]
        raise CheckpointError(f"{metadata.where}: {TOKENS} has {shown(twice)} twice; fetch the file again")
    return tokens, types.tolist()


def _merges(metadata: Metadata) -> list[list[str]]:
    merges = metadata.texts(MERGES)
    if merges is None:
        raise metadata.bad(MERGES, "a list of texts")
    pairs = [merge.split(" ") for merge in merges]
    wrong = next((merge for merge, pair in zip(merges, pairs, strict=True) if len(pair) != 2), None)
    if wrong is not None:
        raise CheckpointError(
            f"{metadata.where}: {MERGES} has {shown(wrong)}, expected two tokens; fetch the file again"
        )
    return pairs


def _added(number: int, token: str, kind: int) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": token, **flags, "special": kind == CONTROL}


def _named(metadata: Metadata, key: str, tokens: list[str]) -> str | None:
    number = metadata.integer(f"{PREFIX}{key}", least=0, most=len(tokens) - 1)
    return None if number is None else tokens[number]


def _surround(metadata: Metadata, named: Mapping[str, str | None]) -> dict[str, Any] | None:
    """Return the template that puts a text between tokens; None where it stays as it is."""
    around: dict[str, str] = {}
    for end in ("bos", "eos"):
        if metadata.boolean(f"{PREFIX}add_{end}_token"):
            token = named[f"{end}_token"]
            if token is None:
                raise metadata.bad(f"{PREFIX}{end}_token_id", f"a token, since add_{end}_token is true")
            around[end] = token
    if not around:
        return None

    def sequence(name: str, kind: int) -> list[dict[str, Any]]:
        before, after = (
            [{"SpecialToken": {"id": around[end], "type_id": kind}}] if end in around else [] for end in ("bos", "eos")
        )
        return [*before, {"Sequence": {"id": name, "type_id": kind}}, *after]

    ids = {token: metadata.integer(f"{PREFIX}{end}_token_id") for end, token in around.items()}
    return {
        "type": "TemplateProcessing",
        "single": sequence("A", 0),
        "pair": [*sequence("A", 0), *sequence("B", 1)],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]} for token, id in ids.items()},
    }
