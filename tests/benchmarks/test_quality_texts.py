"""The texts that qualities are measured on: three kinds, none of them calibrated on, and a column for each."""

import json
from pathlib import Path

import numpy as np
import pytest
from intaglio.benchmarks.artifacts.variants import OWN
from intaglio.benchmarks.harness import doc_chats, quality_reference, windows
from intaglio.benchmarks.harness.divergence import compare
from intaglio.benchmarks.harness.records import Key, Records
from intaglio.benchmarks.pages import quantization_page
from intaglio.benchmarks.pages.quantization_page import Measured
from intaglio.exporter.quantize.calibration import DEFAULT_TEXT
from intaglio.files.chat.template import read_chat_format
from intaglio.tests import tiny
from intaglio.tests.parity.cases.test_texts import runs
from numpy.typing import NDArray
from tokenizers import Tokenizer

SOURCE = Path(__file__).parents[1] / "checkpoints" / "tiny-qwen2"


def test_chats_are_questions_and_answers_of_the_documentation(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(f"# Seals\n\nIntro.\n\n## Empty\n\nno\n\n### Stones\n\n{'hard ' * 50}\n")
    (tmp_path / "short.md").write_text("# Nothing\n")
    assert list(doc_chats.chats(tmp_path)) == [
        [
            {"role": "user", "content": "Seals: what can you tell me about “Stones”?"},
            {"role": "assistant", "content": ("hard " * 50).strip()},
        ]
    ]


def test_the_default_texts_are_long_enough_and_were_not_calibrated_on() -> None:
    found = windows.texts(SOURCE)
    assert list(found) == ["WikiText-2", "Python", "chat"][not windows.WIKITEXT.is_file() :]
    template = read_chat_format(SOURCE)
    first = next(doc_chats.chats())
    assert found["chat"].startswith(template.render(first, add_generation_prompt=False))
    calibrated = runs(DEFAULT_TEXT.read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(SOURCE / "tokenizer.json"))
    for name, text in found.items():
        shared = len(runs(text) & calibrated) / len(runs(text))
        assert shared < 1e-3, name
        assert windows.spread(text, tokenizer, quality_reference.WINDOWS, quality_reference.TOKENS).shape == (16, 512)


def test_texts_are_added_and_replaced_and_chats_need_a_template(tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "checkpoint", tiny.config("qwen2", num_hidden_layers=1), tokenizer=True)
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": None}))
    (tmp_path / "law.txt").write_text("a law")
    (tmp_path / "code.jsonl").write_text(json.dumps({"text": "code"}))
    found = windows.texts(folder, {"law": tmp_path / "law.txt", "Python": tmp_path / "code.jsonl"})
    assert (found["law"], found["Python"], "chat" in found) == ("a law", "code\n", False)


def test_qualities_on_other_texts_are_measured_again(tmp_path: Path) -> None:
    one, other = (quality_reference.folder(tmp_path, {"a": text}) for text in ("x", "y"))
    assert one != other
    records = Records(tmp_path / "records.jsonl")
    records.add(Key("quality", "int4", "", 0), {"reference": one.name})
    records.add(Key("quality", "int8", "", 0), {"kl": 1.0})
    records.add(Key("speed", "int8", "", 0), {})
    quality_reference.forget_other_texts(records, one)
    assert [(record["section"], record["name"]) for record in records.all] == [("quality", "int4"), ("speed", "int8")]
    quality_reference.forget_other_texts(records, other)
    assert records.names("quality") == []


class Uniform:
    """A model that knows nothing."""

    def logits(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.zeros((tokens.size, 4), dtype=np.float32)


@pytest.fixture
def measured(tmp_path: Path) -> list[Measured]:
    """Two variants, measured on two texts, of the first of which the reference is surer."""
    tokens = np.zeros((2, 6), dtype=np.int64)
    np.save(tmp_path / "windows.npy", tokens)
    (tmp_path / "names.json").write_text(json.dumps(["prose", "chat"]))
    reference = np.log(np.full((2, 6, 4), 0.2, dtype=np.float32))
    reference[:, :, 0] = np.log(0.4)
    reference[0] = np.log([0.7, 0.1, 0.1, 0.1])
    np.save(tmp_path / "reference.npy", reference.astype(np.float16))
    np.save(tmp_path / "top.npy", tokens)
    np.save(tmp_path / "loss.npy", -reference[:, :-1, 0])
    figures = compare(Uniform(), tmp_path)
    assert figures["reference"] == tmp_path.name
    return [Measured(variant, 10**8 * (i + 1), 10**8, {}, figures, []) for i, variant in enumerate(OWN[1:3])]


def test_the_table_and_the_plot_have_a_column_for_each_text(measured: list[Measured], tmp_path: Path) -> None:
    head, _, row, *_ = (line.strip("| ").split(" | ") for line in quantization_page.table(measured).splitlines())
    cells = dict(zip(head, row, strict=False))
    expected = 0.7 * np.log(0.7 / 0.25) + 3 * 0.1 * np.log(0.1 / 0.25)
    assert cells["KL: prose"] == f"{expected:.3f}"
    assert cells["KL: chat"] == f"{0.4 * np.log(0.4 / 0.25) + 3 * 0.2 * np.log(0.2 / 0.25):.3f}"
    assert cells["perplexity ratio: prose / chat"] == f"{0.7 / 0.25:.4f} / {0.4 / 0.25:.4f}"
    quantization_page.draw_sizes(tmp_path / "a.svg", measured)
    drawn = (tmp_path / "a.svg").read_text()
    assert ">prose<" in drawn
    assert ">chat<" in drawn
