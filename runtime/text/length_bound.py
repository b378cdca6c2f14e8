"""A lower bound of the number of tokens of a text, without tokenizing it: text that cannot fit is refused at once.

Tokenizing 10 MB takes 10 s and 2 GB. For a byte-level BPE tokenizer, every byte of the normalized text is in one token,
so that the text has at least as many tokens as its bytes divided by those of the longest token.
"""

from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer as Backend

from ...files.json_file import parse_json
from .detokenize import BYTES

NFC_SHRINKS = 4
"""NFC makes no text shorter than this fraction of its bytes; the largest ratio in Unicode is 3 (a Hangul syllable)."""

KEEPS_ALL = frozenset({"ByteLevel", "Digits", "Split", "Punctuation"})
"""Pre-tokenizers that divide a text; Split and Punctuation may also remove what divides it."""


class LengthBound:
    """The bound of one tokenizer."""

    def __init__(self, backend: Backend) -> None:
        self._longest = longest_token(backend)
        self._composes = backend.normalizer is not None

    def least_tokens(self, text: str) -> int:
        """Return a number of tokens that the text does not fall below; 0 if the tokenizer may drop text."""
        if self._longest is None:
            return 0
        size = len(text.encode())
        if self._composes and not text.isascii():
            # A character of ASCII is composed to one of at least a byte, so that these bytes count in full.
            ascii_bytes = len(text.encode("ascii", "ignore"))
            size = max(ascii_bytes, size // NFC_SHRINKS)
        return -(-size // self._longest)


def longest_token(backend: Backend) -> int | None:
    """Return the bytes of the longest token; None for a tokenizer that need not put every byte into a token.

    These are: a model other than BPE, or one without all 256 bytes; a normalizer other than NFC; a pre-tokenizer that
    removes text; and an added token that takes the spaces beside it along.
    """
    if type(backend.model).__name__ != "BPE" or not _composes_only(backend) or not _divides_only(backend):
        return None
    added = backend.get_added_tokens_decoder().values()
    if any(token.lstrip or token.rstrip for token in added):
        return None
    vocabulary = backend.get_vocab(with_added_tokens=False)
    affixes = (backend.model.continuing_subword_prefix, backend.model.end_of_word_suffix)
    if any(affixes) or not all(character in vocabulary for character in BYTES):
        return None
    contents = [token.content for token in added]
    if backend.normalizer is not None:
        contents += [backend.normalizer.normalize_str(content) for content in contents]
    return max(*map(len, vocabulary), *(len(content.encode()) for content in contents))


def _composes_only(backend: Backend) -> bool:
    return backend.normalizer is None or _state(backend.normalizer).get("type") == "NFC"


def _divides_only(backend: Backend) -> bool:
    """Return True if the pre-tokenizer writes bytes as characters in the end, and removes nothing before."""
    if backend.pre_tokenizer is None:
        return False
    state = _state(backend.pre_tokenizer)
    steps: list[Mapping[str, Any]] = state["pretokenizers"] if state.get("type") == "Sequence" else [state]
    kinds = [step.get("type") for step in steps]
    removes = any(step.get("behavior") == "Removed" for step in steps)
    return kinds[-1:] == ["ByteLevel"] and KEEPS_ALL.issuperset(kinds) and not removes


def _state(component: Any) -> dict[str, Any]:
    """Return a component of a tokenizer as tokenizer.json has it."""
    state: dict[str, Any] = parse_json(component.__getstate__())
    return state
