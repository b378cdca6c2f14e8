"""The runtime on artifacts with a checkpoint's own codes: intaglio's kernels where they take the graph, or not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from intaglio.exporter import export
from intaglio.models.checkpoint import Checkpoint
from intaglio.runtime import TextGenerator, kernels, load
from intaglio.tests import tiny
from intaglio.tests.exporter import drive
from intaglio.tests.exporter.stored.grids import EVERY, LAYERS, Kind, by_end, install
from intaglio.tests.exporter.stored.test_carried import FLOAT, SMALL, TESTS, write
from numpy.typing import NDArray


@pytest.mark.parametrize("kind", [Kind(zeros="any", ordered=True), Kind(6, 16, scales="single")], ids=str)
def test_float_activations_give_the_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    install(monkeypatch, by_end(dict.fromkeys(LAYERS, kind)))
    folder = write(tmp_path / "checkpoint", "exaone4", tokenizer=True)
    export(folder, tmp_path / "out", options=FLOAT)
    model = load(tmp_path / "out", threads=1)
    assert isinstance(model, TextGenerator)
    native, ids = Checkpoint(folder).load(), drive.ids(288, 9)[0].tolist()
    expected = list(ids)
    with torch.inference_mode():
        while len(expected) < 17 and expected[-1] != 2:  # the end of a text
            expected.append(int(native(torch.tensor([expected])).logits[0, -1].argmax()))
    found = model.generate(ids, max_new_tokens=8, temperature=0)
    assert list(found.token_ids) == expected[9:]


@pytest.mark.parametrize(("family", "task"), [("qwen2", "token-classification"), ("exaone4", "feature-extraction")])
def test_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, task: str) -> None:
    install(monkeypatch, by_end(dict.fromkeys((*EVERY, "score"), Kind(zeros="least", offsets="any"))))
    settings: dict[str, Any] = SMALL[family] | {"quantization_config": TESTS}
    folder = tiny.write(tmp_path / "checkpoint", tiny.config(family, task, **settings))
    export(folder, tmp_path / "out", options=FLOAT)
    tokens = drive.ids(288, 15)
    feeds = {"input_ids": tokens.numpy(), "attention_mask": torch.ones_like(tokens).numpy()}
    (found,) = drive.run(drive.session(tmp_path / "out"), feeds)
    with torch.inference_mode():
        output = Checkpoint(folder).load()(tokens)
    wanted = output.logits if task == "token-classification" else output.last_hidden_state
    assert (torch.from_numpy(found) - wanted).abs().max() <= 1e-5 * max(1, wanted.abs().max().item())


@pytest.mark.skipif(kernels.instructions() is None, reason="no compiled kernels for this processor")
@pytest.mark.parametrize(
    "kind",
    [
        Kind(block_size=64, zeros="any", ordered=True),
        Kind(zeros="least", offsets="any"),
        Kind(6, 16, scales="single"),  # scales that float16 does not hold
    ],
    ids=str,
)
def test_kernels_compute_nearly_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    install(monkeypatch, by_end(dict.fromkeys(EVERY, kind)))
    folder = write(tmp_path / "checkpoint", "qwen2", tokenizer=True, tie_word_embeddings=True)
    export(folder, tmp_path / "out")
    ours, theirs = load(tmp_path / "out", threads=1), load(tmp_path / "out", threads=1, kernels="onnxruntime")
    assert isinstance(ours, TextGenerator)
    assert isinstance(theirs, TextGenerator)
    assert "MatMulNBits" in ours.session.intaglio_kernels
    tokens = drive.ids(288, 40)
    found, wanted = logits(ours, tokens.numpy()), logits(theirs, tokens.numpy())
    with torch.inference_mode():
        exact = Checkpoint(folder).load()(tokens).logits.numpy()
    largest = np.abs(exact).max()
    assert np.abs(found - wanted).max() < 0.05 * largest
    assert 0 < np.abs(found - exact).max() < 0.1 * largest  # activations in 8 bits


def logits(model: TextGenerator, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
    facts = model.manifest.model
    feeds: dict[str, NDArray[Any]] = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
    for value in model.session.raw.get_inputs():
        if value.name.startswith("past_key_values."):
            feeds[value.name] = np.zeros((1, facts.num_key_value_heads, 0, facts.head_dim), dtype=np.float32)
    return np.asarray(model.session.run(feeds, ("logits",))[0])
