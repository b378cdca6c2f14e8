"""Texts that cannot fit are refused before they are tokenized, and no text that fits is."""

import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from intaglio.artifact import ModelFacts
from intaglio.errors import PromptError
from intaglio.runtime.tasks.padded import encode_texts
from intaglio.runtime.text.length_bound import NFC_SHRINKS, LengthBound, longest_token
from intaglio.runtime.text.prompts import prompt_tokens
from intaglio.runtime.text.tokenizer import Tokenizer
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

CHECKPOINTS = Path(__file__).parent.parent.parent / "checkpoints"
WORDS = ["the", " engraver", "\n\n", "   ", "é", "e\u0301", "\u1100\u1161\u11a8", "한국어", "你好", "😀", "\u212a"]
WORDS += ["<|endoftext|>", "[|user|]", "a" * 40, " " * 40, "-" * 40, "\x00", "1942", "\u03b1\u0313\u0342\u0345"]


def backend(name: str) -> Backend:
    return Backend.from_file(str(CHECKPOINTS / name / "tokenizer.json"))


def trained() -> Backend:
    """A byte-level BPE tokenizer with long tokens."""
    made = Backend(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(["ab" * 64] * 4, trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    return made


@pytest.mark.parametrize("name", ["tiny-qwen2", "tiny-exaone4"])
def test_no_text_has_fewer_tokens_than_the_bound(name: str) -> None:
    tokenizer, generator = backend(name), random.Random(0)
    bound = LengthBound(tokenizer)
    for _ in range(500):
        text = "".join(generator.choices(WORDS, k=generator.randrange(30)))
        assert bound.least_tokens(text) <= len(tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("name", ["tiny-qwen2", "tiny-exaone4"])
def test_the_bound_of_the_longest_token_is_exact(name: str) -> None:
    tokenizer = backend(name)
    longest = max(tokenizer.get_vocab(with_added_tokens=True), key=len)
    assert longest_token(tokenizer) == len(longest) == 15
    assert LengthBound(tokenizer).least_tokens("x" * 15_000) == 1000
    assert LengthBound(tokenizer).least_tokens("x" * 15_001) == 1001


def test_a_text_of_the_longest_tokens_alone_reaches_the_bound() -> None:
    tokenizer = trained()
    assert longest_token(tokenizer) == 128
    assert LengthBound(tokenizer).least_tokens("ab" * 640) == len(tokenizer.encode("ab" * 640)) == 10


def test_nfc_makes_no_text_shorter_than_assumed() -> None:
    """Each character's longest spelling: its full decomposition, whose characters may be written longer themselves."""
    longest: dict[str, int] = {}
    characters = [chr(code) for code in range(0x30000) if not unicodedata.is_normalized("NFD", chr(code))]
    assert len(characters) > 11_172  # the Hangul syllables
    for character in characters:
        composed = unicodedata.normalize("NFC", character)
        longest[composed] = max(longest.get(composed, 0), len(character.encode()))
    for character in characters:
        spelled = sum(longest.get(part, len(part.encode())) for part in unicodedata.normalize("NFD", character))
        spelled = max(spelled, longest.get(character, 0))
        assert spelled <= NFC_SHRINKS * len(unicodedata.normalize("NFC", character).encode())


def lstrip(made: Backend) -> None:
    made.add_special_tokens([AddedToken("<mask>", lstrip=True)])


def removes(made: Backend) -> None:
    split = pre_tokenizers.Split(Regex(r"\s+"), "removed")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel()])


def strips(made: Backend) -> None:
    made.normalizer = normalizers.Strip()


def words(made: Backend) -> None:
    made.model = models.WordLevel({"ab": 0}, unk_token="ab")


def few_bytes(made: Backend) -> None:
    made.model = models.BPE({"a": 0}, [])


def no_bytes(made: Backend) -> None:
    made.pre_tokenizer = pre_tokenizers.Whitespace()


@pytest.mark.parametrize("change", [lstrip, removes, strips, words, few_bytes, no_bytes])
def test_there_is_no_bound_where_the_tokenizer_may_drop_text(change: object) -> None:
    made = trained()
    assert LengthBound(made).least_tokens("x" * 1000) == 8
    assert callable(change)
    change(made)
    assert LengthBound(made).least_tokens("x" * 1000) == 0


class Counted:
    """A tokenizer's library that counts the texts that it encodes."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self.encoded = 0

    def encode(self, text: str, add_special_tokens: bool = True) -> object:
        self.encoded += 1
        return self._inner.encode(text, add_special_tokens=add_special_tokens)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


def test_a_text_that_cannot_fit_is_refused_without_tokenizing_it() -> None:
    counted = Counted(backend("tiny-qwen2"))
    tokenizer = Tokenizer(counted, None)  # type: ignore[arg-type]
    limits = ModelFacts(1000, 8, 1, 1, 1, 8, (None,), 64, "float32")
    message = r"^the prompt has 9,999,999 characters, which are at least 666,667 tokens, and there is room for 63; "
    with pytest.raises(PromptError, match=message):
        prompt_tokens("a b" * 3_333_333, tokenizer, limits, "the prompt")
    with pytest.raises(PromptError, match=r"^the text has 10,000,000 characters, .* room for 64; shorten it"):
        encode_texts([" " * 10_000_000], tokenizer, limits, False)
    assert counted.encoded == 0
    # A text that may fit is tokenized, and then refused by its tokens.
    with pytest.raises(PromptError, match=r"^the prompt has 64 tokens, the model's context is 64"):
        prompt_tokens("ab" * 64, tokenizer, limits, "the prompt")
    assert np.array_equal(prompt_tokens("ab", tokenizer, limits, "x"), counted.encode("ab").ids)  # type: ignore[attr-defined]


def test_a_panic_of_the_library_is_refused() -> None:
    made = trained()
    made.pre_tokenizer = pre_tokenizers.Split(Regex("(x+x+)+y"), "isolated")
    with pytest.raises(PromptError, match=r"^the text cannot be tokenized \(Onig: .*; shorten it where one character"):
        Tokenizer(made, None).encode("x" * 100_000)
