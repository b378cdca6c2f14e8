"""The GGUF file of a real, trained model: read and run as transformers reads and runs the same file.

It lies beside the folder of the real model, as ``qwen2.gguf``; without it these tests skip.
"""

from pathlib import Path
from typing import Any

import intaglio
import pytest
import torch
from intaglio.exporter import export
from intaglio.files.tokenizer_file import read_tokenizer
from intaglio.models.checkpoint import Checkpoint
from intaglio.tests.real_model import FOLDER
from transformers import AutoModelForCausalLM

from . import make
from .test_tokenizer import TEXTS

FILE = FOLDER.parent / "qwen2.gguf"
pytestmark = [pytest.mark.real, pytest.mark.skipif(not FILE.is_file(), reason=f"there is no {FILE}")]

PROMPTS = (
    "The engraver cuts a design into the stone, and",
    "def fibonacci(n):\n",
    "<|im_start|>user\nName three gems and their colours.<|im_end|>\n<|im_start|>assistant\n",
)
TOKENS = 64


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return Checkpoint(FILE)


def test_every_weight_is_that_of_gguf_py(checkpoint: Checkpoint) -> None:
    expected = make.read_values(FILE)
    assert checkpoint.quantized.keys() == expected.keys()
    for name, values in expected.items():
        for start, rows in checkpoint.rows(name):
            assert torch.equal(rows, values[start : start + len(rows)]), name


def test_texts_have_the_tokens_of_the_folder(checkpoint: Checkpoint) -> None:
    ours, theirs = read_tokenizer(checkpoint.folder), read_tokenizer(FOLDER)
    assert ours is not None
    assert theirs is not None
    calibration = Path(intaglio.__file__).parent / "exporter" / "quantize" / "calibration.txt"
    for text in (*TEXTS, *calibration.read_text(encoding="utf-8").splitlines(keepends=True)):
        assert ours.encode(text).ids == theirs.encode(text).ids, text
    template = (FOLDER / "chat_template.jinja").read_text(encoding="utf-8")
    assert (checkpoint.folder / "chat_template.jinja").read_text(encoding="utf-8") == template


def test_greedy_tokens_are_those_of_transformers(tmp_path: Path) -> None:
    export(FILE, tmp_path / "out", precision="fp32")
    with intaglio.load(tmp_path / "out", task="text-generation") as model:
        found = [one.token_ids for one in model.generate(list(PROMPTS), max_new_tokens=TOKENS, temperature=0.0)]
        assert model.tokenizer is not None
        prompts = [model.tokenizer.encode(prompt) for prompt in PROMPTS]
    reference: Any = AutoModelForCausalLM.from_pretrained(FILE.parent, gguf_file=FILE.name, dtype=torch.float32)
    for prompt, tokens in zip(prompts, found, strict=True):
        ids = torch.tensor([prompt])
        whole = reference.generate(ids, max_new_tokens=TOKENS, do_sample=False)
        expected = whole[0, len(prompt) :].tolist()
        assert list(tokens) == expected[: len(tokens)]
        assert len(tokens) >= len(expected) - 1  # the end of the text is not among them
