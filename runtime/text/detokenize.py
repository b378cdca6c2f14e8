"""Token ids to text one token at a time, without ever giving half a character.

A byte-level token is a run of bytes and may end inside a character. The pieces that ``push`` returns, followed by
``flush``, are the text; for byte-level tokenizers they equal ``tokenizers``' decoding of the whole sequence, which
replaces bytes that are no UTF-8 by U+FFFD.
"""

import codecs
from typing import Protocol

from tokenizers import Tokenizer as Backend
from tokenizers import decoders

REPLACEMENT = "�"

SHOWN = frozenset({"<think>", "</think>", "<tool_call>", "</tool_call>"})
"""Tags that are part of the text, even where a tokenizer counts them among its special tokens: without them a thought
could not be told from the answer, nor a call from either."""


class Detokenizer(Protocol):
    """Takes token ids; special tokens, and ids the tokenizer does not know, add no text."""

    def push(self, token_id: int) -> str:
        """The text that is certain now."""

    def flush(self) -> str:
        """What was held back; call it once, at the end."""


def detokenizer(backend: Backend) -> Detokenizer:
    """A fresh decoder for this tokenizer."""
    if isinstance(backend.decoder, decoders.ByteLevel):
        return ByteLevelDetokenizer(backend)
    return WindowDetokenizer(backend)


class ByteLevelDetokenizer:
    """For byte-level tokenizers, GPT-2's scheme: every character of a token stands for one byte."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        added = backend.get_added_tokens_decoder().items()
        self._special = {id for id, token in added if token.special and token.content not in SHOWN}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        token = None if token_id in self._special else self._backend.id_to_token(token_id)
        return self._decoder.decode(_token_bytes(token)) if token else ""

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)


class WindowDetokenizer:
    """For every other decoder: what the last tokens add to the text of those just before them.

    The tokens of the last piece are decoded again with the new ones, so that a decoder that strips a leading space
    strips it from both texts. A text that ends in U+FFFD may be an unfinished character and is held back.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._before: list[int] = []
        self._pending: list[int] = []

    def push(self, token_id: int) -> str:
        self._pending.append(token_id)
        piece = self._piece()
        if not piece or piece.endswith(REPLACEMENT):
            return ""
        self._before, self._pending = self._pending, []
        return piece

    def flush(self) -> str:
        piece = self._piece()
        self._before, self._pending = self._pending, []
        return piece

    def _piece(self) -> str:
        before = self._backend.decode(self._before)
        return self._backend.decode(self._before + self._pending)[len(before) :]


def _byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 bytes stand for themselves, the others for the characters from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTES = _byte_of_character()


def _token_bytes(token: str) -> bytes:
    """An added token may hold characters outside the alphabet; then it stands for its own UTF-8."""
    try:
        return bytes(BYTES[character] for character in token)
    except KeyError:
        return token.encode()
