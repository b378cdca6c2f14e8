"""The artifact's tokenizer: ``tokenizer.json`` read as transformers' ``AutoTokenizer`` reads it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Encoding, normalizers
from tokenizers import Tokenizer as Backend

from ...errors import ArtifactError, PromptError
from ..folder import read_json
from .detokenize import Detokenizer, detokenizer

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True)
class Tokenizer:
    """Text to token ids and back. ``eos_token_id`` is tokenizer_config.json's, where it names one."""

    backend: Backend
    eos_token_id: int | None

    def encode(self, text: str) -> list[int]:
        """Token ids, with the special tokens that the tokenizer's template adds."""
        return list(self.encode_with_offsets(text).ids)

    def encode_with_offsets(self, text: str, *, add_special_tokens: bool = True) -> Encoding:
        """As ``encode``, with each token's range of characters in ``text``.

        Raises:
            PromptError: the text is no valid Unicode.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise PromptError(
                f"the text is no valid Unicode: character {error.start} is {text[error.start]!r}, half of a pair; "
                "read it as UTF-8"
            ) from None
        return self.backend.encode(text, add_special_tokens=add_special_tokens)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text without special tokens; bytes that are no UTF-8 become U+FFFD."""
        stream = self.detokenizer()
        return "".join(map(stream.push, token_ids)) + stream.flush()

    def detokenizer(self) -> Detokenizer:
        """A fresh decoder that takes one token at a time."""
        return detokenizer(self.backend)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read the artifact's tokenizer.

    Raises:
        ArtifactError: there is no tokenizer.json, or it cannot be read.
    """
    tokenizer = try_tokenizer(folder)
    if tokenizer is None:
        raise ArtifactError(
            f"{folder} has no tokenizer.json, so it cannot read text; "
            "put the file beside the checkpoint and export the model again"
        )
    return tokenizer


def try_tokenizer(folder: Path) -> Tokenizer | None:
    """As ``load_tokenizer``, or None when there is no tokenizer.json (token ids can still be generated from).

    Which special tokens surround a text is the template's matter, which tokenizer.json holds; ``add_bos_token`` and
    ``add_eos_token`` in tokenizer_config.json have no say beside it, in transformers 5 neither.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        backend = Backend.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ArtifactError(f"{path} cannot be read ({error}); export the model again") from None
    config = read_json(folder / "tokenizer_config.json")
    # Settings of whoever trained the tokenizer: batches are cut and padded by the caller here, never silently.
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = bool(config.get("split_special_tokens", False))
    if backend.normalizer is None and _is_qwen2(folder, config):
        # Qwen2's tokenizer composes to NFC; converted tokenizer.json files lose it, and AutoTokenizer puts it back.
        backend.normalizer = normalizers.NFC()
    _add_missing_tokens(backend, config)
    eos = _content(config.get("eos_token"))
    return Tokenizer(backend, backend.token_to_id(eos) if eos else None)


def _is_qwen2(folder: Path, config: dict[str, Any]) -> bool:
    named = str(config.get("tokenizer_class", "")).removesuffix("Fast")
    return named == "Qwen2Tokenizer" or read_json(folder / "config.json").get("model_type") == "qwen2"


def _add_missing_tokens(backend: Backend, config: dict[str, Any]) -> None:
    """Tokens that only tokenizer_config.json knows, in the order of their ids, then the named special tokens."""
    declared = config.get("added_tokens_decoder") or {}
    for _, entry in sorted(declared.items(), key=lambda item: int(item[0])):
        if backend.token_to_id(entry["content"]) is None:
            flags = {name: bool(entry.get(name, False)) for name in ("single_word", "lstrip", "rstrip", "special")}
            normalized = bool(entry.get("normalized", not flags["special"]))
            backend.add_tokens([AddedToken(entry["content"], normalized=normalized, **flags)])
    for name in NAMED_TOKENS:
        content = _content(config.get(name))
        if content and backend.token_to_id(content) is None:
            backend.add_special_tokens([AddedToken(content, special=True, normalized=False)])


def _content(token: Any) -> str | None:
    """A special token is written as a string or as an object with ``content``."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
