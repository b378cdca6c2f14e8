"""Incremental detokenization: from token ids to text, one token at a time, in whole characters.

A byte-level token is a string of bytes that may end inside a character. The results of ``push``, followed by that of
``flush``, are the text. For byte-level tokenizers it equals the decoding of all tokens at once by ``tokenizers``, which
replaces invalid UTF-8 by U+FFFD.
"""

import codecs
from copy import copy
from typing import Protocol

from tokenizers import Tokenizer as Backend
from tokenizers import decoders

from ...errors import ArtifactError
from ...files.library_errors import library_errors

REPLACEMENT = "�"

SHOWN = frozenset({"<think>", "</think>", "<tool_call>", "</tool_call>"})
"""Tags that are kept in the text even where a tokenizer has them as special tokens: they separate thoughts, tool calls
and the answer."""


class Detokenizer(Protocol):
    """Takes token ids one by one; special and unknown ones add no text."""

    def push(self, token_id: int) -> str:
        """Return the text that is certain now."""
        ...

    def flush(self) -> str:
        """Return the text that is held back; call it once, at the end."""
        ...

    def copy(self) -> "Detokenizer":
        """Return a detokenizer that has taken the same tokens."""
        ...


def detokenizer(backend: Backend) -> Detokenizer:
    """Return a new detokenizer."""
    if isinstance(backend.decoder, decoders.ByteLevel):
        return ByteLevelDetokenizer(backend)
    return WindowDetokenizer(backend)


class ByteLevelDetokenizer:
    """For byte-level tokenizers, GPT-2's scheme: each character of a token represents one byte."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._special = {
            id
            for id, token in backend.get_added_tokens_decoder().items()
            # A token that was special in tokenizer.json stays one in the decoder, whatever another file says.
            if (token.special or not backend.decode([id])) and token.content not in SHOWN
        }
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        token = None if token_id in self._special else self._backend.id_to_token(token_id)
        return self._decoder.decode(_token_bytes(token)) if token else ""

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)

    def copy(self) -> "ByteLevelDetokenizer":
        copied = copy(self)
        copied._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        copied._decoder.setstate(self._decoder.getstate())
        return copied


class WindowDetokenizer:
    """For all other tokenizers: decodes the last tokens twice, without and with the new ones.

    Both texts begin with the tokens of the last chunk, so a decoder that strips a leading space strips it from both. A
    text that ends in U+FFFD may be an unfinished character and is held back.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._before: list[int] = []
        self._pending: list[int] = []

    def push(self, token_id: int) -> str:
        self._pending.append(token_id)
        chunk = self._new_text()
        if not chunk or chunk.endswith(REPLACEMENT):
            return ""
        self._before, self._pending = self._pending, []
        return chunk

    def flush(self) -> str:
        chunk = self._new_text()
        self._before, self._pending = self._pending, []
        return chunk

    def copy(self) -> "WindowDetokenizer":
        copied = copy(self)
        copied._pending = list(self._pending)  # ``_before`` is replaced, never changed
        return copied

    def _new_text(self) -> str:
        with library_errors(decoding_refusal):
            before = self._backend.decode(self._before)
            return self._backend.decode(self._before + self._pending)[len(before) :]


def token_bytes(backend: Backend, token_id: int) -> bytes:
    """Return the bytes of a single token, special or not; none for an id that is not the tokenizer's."""
    if not isinstance(backend.decoder, decoders.ByteLevel):
        with library_errors(decoding_refusal):
            return backend.decode([token_id], skip_special_tokens=False).encode()
    token = backend.id_to_token(token_id)
    return _token_bytes(token) if token else b""


def decoding_refusal(reason: str) -> ArtifactError:
    """Return the error of a tokenizer that fails on tokens."""
    return ArtifactError(f"tokenizer.json cannot decode the model's tokens ({reason}); export the model again")


def _byte_of_character() -> dict[str, int]:
    """Return GPT-2's alphabet: printable Latin-1 bytes are their own characters, the others those from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTES = _byte_of_character()


def _token_bytes(token: str) -> bytes:
    """Return the bytes of a token; of an added token with characters outside the alphabet its UTF-8."""
    try:
        return bytes(BYTES[character] for character in token)
    except KeyError:
        return token.encode()
