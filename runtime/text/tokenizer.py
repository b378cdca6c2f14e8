"""The artifact's tokenizer: text to token ids and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tokenizers import Encoding
from tokenizers import Tokenizer as Backend

from ...errors import ArtifactError, ContextLengthError, PromptError
from ...files.library_errors import library_errors
from ...files.tokenizer_file import named_tokens, read_tokenizer
from .detokenize import Detokenizer, decoding_refusal, detokenizer, token_bytes
from .length_bound import LengthBound

BYTES_PER_TOKEN = 16
"""Text of fewer bytes for each token of the room may fit, and is tokenized; English has 4 or 5."""


@dataclass(frozen=True)
class Tokenizer:
    """Text to token ids and back, with the ids of the tokens that the folder's files name."""

    backend: Backend
    eos_token_id: int | None
    unk_token_id: int | None = None

    def encode(self, text: str) -> list[int]:
        """Return token ids, with the special tokens that the tokenizer's template adds."""
        return list(self.encode_with_offsets(text).ids)

    def encode_with_offsets(self, text: str, *, add_special_tokens: bool = True) -> Encoding:
        """Return token ids with the range of characters of each in ``text``.

        Raises:
            PromptError: the text is not valid Unicode, or the library fails on it.
        """
        check_unicode(text)
        with library_errors(_refusal):
            return self.backend.encode(text, add_special_tokens=add_special_tokens)

    def check_length(self, text: str, room: int, name: str) -> None:
        """Refuse a text that certainly has more than ``room`` tokens, before it is tokenized.

        Raises:
            ContextLengthError: it has. ``name`` is the text's name in the message.
        """
        check_unicode(text)
        if len(text.encode()) > room * BYTES_PER_TOKEN:
            least = self._length_bound.least_tokens(text)
            if least > room:
                raise ContextLengthError(
                    f"{name} has {len(text):,} characters, which are at least {least:,} tokens, and there is room for "
                    f"{room:,}; shorten it"
                )

    @cached_property
    def _length_bound(self) -> LengthBound:
        return LengthBound(self.backend)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return text without special tokens; invalid UTF-8 becomes U+FFFD."""
        stream = self.detokenizer()
        return "".join(map(stream.push, token_ids)) + stream.flush()

    def token_text(self, token_id: int) -> str:
        """Return the text of a single token, special or not; empty for an id that is not the tokenizer's."""
        with library_errors(decoding_refusal):
            return self.backend.decode([token_id], skip_special_tokens=False)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of a single token, which may be a part of a character; none for an unknown id."""
        return token_bytes(self.backend, token_id)

    def detokenizer(self) -> Detokenizer:
        """Return a new detokenizer, which takes one token at a time."""
        return detokenizer(self.backend)


def check_unicode(text: str) -> None:
    """Check that a text can be written as UTF-8.

    Raises:
        PromptError: it has half of a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"the text is not valid Unicode: character {error.start} is {text[error.start]!r}, half of a pair; "
            "read it as UTF-8"
        ) from None


def _refusal(reason: str) -> PromptError:
    return PromptError(
        f"the text cannot be tokenized ({reason}); shorten it where one character is repeated very often"
    )


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
    """As ``load_tokenizer``, or None when there is no tokenizer.json (token ids can still be generated from)."""
    try:
        backend = read_tokenizer(folder)
        if backend is None:
            return None
        named = named_tokens(folder)
        eos, unk = (named.get(name) for name in ("eos_token", "unk_token"))
        return Tokenizer(backend, *(None if token is None else backend.token_to_id(token) for token in (eos, unk)))
    except ValueError as error:
        raise ArtifactError(f"{error}; export the model again") from None
