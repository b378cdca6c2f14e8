"""The reader of a folder's tokenizer files: ``tokenizer.json`` with the repairs of transformers' ``AutoTokenizer``.

The runtime encodes prompts with it and the exporter the calibration text, so that a model is calibrated on the token
ids that it runs with.
"""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers

from .json_fields import JSONFields
from .json_file import read_object
from .library_errors import library_errors
from .regular_file import is_there, read_regular

MAX_BYTES = 1 << 28
"""The most bytes of tokenizer.json; the longest published ones have 35 MB."""

MAX_DIGITS = 10  # of a token id

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """Read ``tokenizer.json`` and repair it by ``tokenizer_config.json`` and ``config.json``.

    The special tokens around a text are those of the file's template; ``add_bos_token`` and ``add_eos_token`` in
    tokenizer_config.json change nothing, as in transformers 5.

    Returns:
        the tokenizer, without truncation and padding; None where there is no tokenizer.json.

    Raises:
        ValueError: one of the files cannot be read. The message names the file and the reason.
    """
    path = folder / "tokenizer.json"
    if not is_there(path):
        return None
    data = read_regular(path, MAX_BYTES)
    with library_errors(lambda reason: ValueError(f"{path} cannot be read ({reason})")):
        tokenizer = Tokenizer.from_str(data.decode())
    config = read_object(folder / "tokenizer_config.json")
    # The file may hold the settings of a training run; here callers truncate and pad.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = bool(config.get("split_special_tokens", False))
    if tokenizer.normalizer is None and _is_qwen2(folder, config):
        # Qwen2's tokenizer composes to NFC; converted tokenizer.json files lose it, and AutoTokenizer puts it back.
        tokenizer.normalizer = normalizers.NFC()
    _add_missing_tokens(tokenizer, JSONFields(config, str(folder / "tokenizer_config.json")))
    return tokenizer


def eos_token_id(folder: Path, tokenizer: Tokenizer) -> int | None:
    """Return the id of tokenizer_config.json's ``eos_token``; None where it names none.

    Raises:
        ValueError: tokenizer_config.json cannot be read.
    """
    content = _content(read_object(folder / "tokenizer_config.json").get("eos_token"))
    return tokenizer.token_to_id(content) if content else None


def _is_qwen2(folder: Path, config: dict[str, Any]) -> bool:
    # As AutoTokenizer decides it; this module is used without torch, so that it cannot read the family's record.
    named = str(config.get("tokenizer_class", "")).removesuffix("Fast")
    return named == "Qwen2Tokenizer" or read_object(folder / "config.json").get("model_type") == "qwen2"


def _add_missing_tokens(tokenizer: Tokenizer, config: JSONFields) -> None:
    """Add the tokens that only tokenizer_config.json declares, in the order of their ids, then the named ones.

    Raises:
        ValueError: ``added_tokens_decoder`` is not an object of token ids and tokens.
    """
    for entry in _declared_tokens(config):
        content = entry.text("content")
        if content is None:
            raise entry.bad("content", "a text")
        if tokenizer.token_to_id(content) is None:
            flags = {name: bool(entry.get(name, False)) for name in ("single_word", "lstrip", "rstrip", "special")}
            normalized = bool(entry.get("normalized", not flags["special"]))
            tokenizer.add_tokens([AddedToken(content, normalized=normalized, **flags)])
    for name in NAMED_TOKENS:
        content = _content(config.get(name))
        if content and tokenizer.token_to_id(content) is None:
            tokenizer.add_special_tokens([AddedToken(content, special=True, normalized=False)])


def _declared_tokens(config: JSONFields) -> list[JSONFields]:
    """Return the entries of ``added_tokens_decoder`` in the order of their ids."""
    declared = config.fields("added_tokens_decoder")
    if declared is None:
        return []
    if not all(key.isascii() and key.isdigit() and len(key) < MAX_DIGITS for key in declared.values):
        raise config.bad("added_tokens_decoder", "an object with token ids as keys")
    ids = sorted(declared.values, key=int)
    if any(key not in declared for key in ids):
        raise config.bad("added_tokens_decoder", "a token for each id")
    return [entry for key in ids if (entry := declared.fields(key)) is not None]


def _content(token: Any) -> str | None:
    """Return the text of a special token, which is written as a string or as an object with ``content``."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
