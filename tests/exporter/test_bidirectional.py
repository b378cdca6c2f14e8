"""Encoders are exported with bidirectional attention, in every target and quantized, and their artifacts say so."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from intaglio import QuantizeOptions, load
from intaglio.artifact import Target
from intaglio.errors import UnsupportedError, UsageError
from intaglio.exporter import export
from intaglio.models.checkpoint import Checkpoint
from intaglio.models.reading.options import ReadOptions
from intaglio.parity import CheckOptions, check
from intaglio.tests import tiny
from intaglio.tests.exporter import drive
from numpy.typing import NDArray

TARGETS: tuple[Target, ...] = ("ort", "standard")
HEADS = ("feature-extraction", "text-classification", "token-classification", "question-answering")
AUTO_MAP = {"AutoModel": "modeling_qwen.Qwen2Model"}
GLOBAL: dict[str, Any] = {"sliding_window": None, "layer_types": ["full_attention"] * 4}
QUICK = CheckOptions(windows=2, window=96, steps=8)
TEXTS = ["The tower stands in Pisa.", "A text", "Of three texts this is the longest, by far the longest."]


def written(folder: Path, family: str = "qwen2", task: str = "feature-extraction", **changes: Any) -> Path:
    values = tiny.config(family, task, **({} if family == "qwen2" else GLOBAL), **changes)
    return tiny.write(folder, values, tokenizer=True)


def reference(folder: Path) -> Any:
    """Return transformers' own class with a bidirectional mask."""
    config = transformers.AutoConfig.from_pretrained(folder)
    config.is_causal = False
    model = transformers.AutoModel.from_pretrained(folder, config=config, dtype=torch.float32)
    return model.eval()


QUICK_CASE = ("exaone4", "token-classification", "ort")
CASES = [
    pytest.param(*case, marks=() if case == QUICK_CASE else pytest.mark.slow)
    for case in itertools.product(("qwen2", "exaone4"), HEADS, TARGETS)
]


@pytest.mark.parametrize(("family", "task", "target"), CASES)
def test_padding_on_either_side(tmp_path: Path, family: str, task: str, target: Target) -> None:
    folder = written(tmp_path / "checkpoint", family, task, is_causal=False)
    export(folder, tmp_path / "out", target=target)
    native, session = Checkpoint(folder).load(), drive.session(tmp_path / "out")
    lengths = [17, 5, 6, 1]
    for left in (False, True):
        ids, mask = torch.zeros(4, 17, dtype=torch.int64), torch.zeros(4, 17, dtype=torch.int64)
        spans = [slice(17 - count, 17) if left else slice(0, count) for count in lengths]
        for row, (span, count) in enumerate(zip(spans, lengths, strict=True)):
            ids[row, span], mask[row, span] = drive.ids(288, count, row)[0], 1
        outputs = drive.run(session, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        for row, span in enumerate(spans):
            with torch.inference_mode():
                expected = native(ids[row : row + 1, span])
            for found, value in zip(outputs, session.get_outputs(), strict=True):
                one = found[row : row + 1] if task == "text-classification" else found[row : row + 1, span]
                np.testing.assert_allclose(one, getattr(expected, value.name).numpy(), rtol=0, atol=1e-4)


def embeddings(model: Any, folder: Path) -> NDArray[np.float32]:
    """Return the last token's hidden states of TEXTS by transformers, of length 1."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in TEXTS:
        with torch.inference_mode():
            hidden = model(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state
        rows.append(torch.nn.functional.normalize(hidden[0, -1], dim=-1))
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("target", TARGETS)
def test_the_embedder_equals_transformers(tmp_path: Path, target: Target) -> None:
    folder = written(tmp_path / "checkpoint", auto_map=AUTO_MAP)
    manifest = export(folder, tmp_path / "out", target=target, attention="bidirectional")
    assert manifest.model.attention == "bidirectional"
    assert json.loads((tmp_path / "out" / "intaglio.json").read_text())["model"]["attention"] == "bidirectional"
    expected = embeddings(reference(folder), folder)
    found = load(tmp_path / "out", task="feature-extraction", threads=1)(TEXTS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    report = check(tmp_path / "out", folder, options=QUICK, threads=1)
    assert (report.verdict, report.findings) == ("faithful", ())
    assert [case.refused for case in report.cases] == [None] * len(report.cases)
    assert report.not_compared == ("the checkpoint's own code (AutoModel: modeling_qwen.Qwen2Model), which is not run",)


@pytest.mark.parametrize(
    ("precision", "target", "method"),
    [
        ("int4", "ort", "gptq"),
        pytest.param("int8", "ort", "rtn", marks=pytest.mark.slow),
        pytest.param("int8", "standard", "rtn", marks=pytest.mark.slow),
        pytest.param("int8", "ort", "smoothquant", marks=pytest.mark.slow),
    ],
)
def test_quantized(tmp_path: Path, precision: Any, target: Target, method: Any) -> None:
    folder = written(tmp_path / "checkpoint", auto_map=AUTO_MAP)
    options = QuantizeOptions(method=method, windows=None if method == "rtn" else 2)
    out = tmp_path / "out"
    export(folder, out, precision=precision, target=target, options=options, attention="bidirectional")
    found = load(out, task="feature-extraction", threads=1)(TEXTS)
    cosines = (found * embeddings(reference(folder), folder)).sum(-1)
    causal = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    assert cosines.min() > (0.99 if precision == "int8" else 0.6)  # the weights are random
    assert cosines.mean() > (found * embeddings(causal, folder)).sum(-1).mean()
    assert check(out, folder, options=QUICK, threads=1).verdict != "broken"


def test_an_artifact_is_a_source_with_its_own_attention(tmp_path: Path) -> None:
    folder = written(tmp_path / "checkpoint", auto_map=AUTO_MAP)
    first = export(folder, tmp_path / "first", attention="bidirectional")
    second = export(tmp_path / "first", tmp_path / "second", precision="fp16")
    assert second.model.attention == "bidirectional"
    assert second.notes == first.notes != ()
    with pytest.raises(UsageError, match="was made with --attention bidirectional, not causal; leave the option out"):
        export(tmp_path / "first", tmp_path / "third", attention="causal")


def test_a_causal_graph_of_an_encoder_is_broken(tmp_path: Path) -> None:
    folder = written(tmp_path / "checkpoint", auto_map=AUTO_MAP)
    export(folder, tmp_path / "out", ignore_auto_map=True, target="standard")
    manifest = tmp_path / "out" / "intaglio.json"
    values = json.loads(manifest.read_text())
    assert "attention" not in values["model"]
    values["model"]["attention"] = "bidirectional"
    manifest.write_text(json.dumps(values))
    report = check(tmp_path / "out", folder, options=QUICK, threads=1)
    assert report.verdict == "broken"
    assert any("tokens do not attend to later tokens: the mask is causal" in f.cause for f in report.findings)


def test_generation_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = written(tmp_path / "checkpoint", task="text-generation", auto_map=AUTO_MAP)
    with pytest.raises(UnsupportedError, match="text-generation needs causal attention; give --task feature-extract"):
        export(folder, tmp_path / "out", precision="int4", attention="bidirectional")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


def test_an_unknown_attention(tmp_path: Path) -> None:
    folder = written(tmp_path / "checkpoint")
    unknown: Any = "global"
    with pytest.raises(UsageError, match="attention is 'global'; choose one of causal, bidirectional"):
        export(folder, tmp_path / "out", attention=unknown)
    assert Checkpoint(folder, ReadOptions()).config.causal
