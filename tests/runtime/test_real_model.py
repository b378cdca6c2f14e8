"""The tokenizer of a real, trained model against transformers."""

import pytest
from intaglio.runtime.text.detokenize import ByteLevelDetokenizer
from intaglio.runtime.text.tokenizer import Tokenizer, load_tokenizer
from intaglio.tests.real_model import FOLDER, needs_real_model
from transformers import AutoTokenizer

pytestmark = needs_real_model("tokenizer.json")
TEXTS = [
    "Hello world",
    " Hello world",
    "e\u0301a\u0301 é",
    "你好😀 👩‍👩‍👧 Ω≈ç",
    "a\n\n  b\t\r\n",
    "<|im_start|>user\nHi<|im_end|>\n",
    "1234567 it's DON'T",
    "def f(x):\n    return x ** 2  # done",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(FOLDER)


def test_known_ids(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("Hello world") == [9707, 1879]
    assert tokenizer.encode(" Hello world") == [21927, 1879]


def test_ids_and_text_equal_transformers(tokenizer: Tokenizer) -> None:
    theirs = AutoTokenizer.from_pretrained(FOLDER)
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids) == theirs.decode(ids, skip_special_tokens=True), text
    assert isinstance(tokenizer.detokenizer(), ByteLevelDetokenizer)
