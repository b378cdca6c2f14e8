"""The check as a whole on sound artifacts, and what it says of input that it cannot use."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from intaglio.artifact import MANIFEST, read_manifest, verify
from intaglio.errors import ArtifactError, UsageError
from intaglio.models.checkpoint import Checkpoint
from intaglio.parity import CheckOptions, Report, check, opening, record
from intaglio.parity.cases.source_model import Passage, SourceModel
from intaglio.runtime import load
from intaglio.tests import tiny
from intaglio.tests.files.artifact_files import data_of

from .artifacts import Base, Pair, Shelf

QUICK = CheckOptions(windows=2, window=48, steps=8)


@pytest.fixture(scope="module")
def pair(shelf: Shelf) -> Pair:
    return shelf.pair(Base("exaone4"))


@pytest.fixture(scope="module")
def report(pair: Pair) -> Report:
    return check(pair.artifact, pair.checkpoint, options=QUICK, threads=1)


def test_a_sound_artifact_is_faithful(report: Report) -> None:
    assert (report.verdict, report.reasons, report.findings) == ("faithful", (), ())
    cases = {case.name: case for case in report.cases}
    assert list(cases) == [
        *("prompt", "decode", "chunks", "batch", "padded-right", "padded-left"),
        *("edge-6-decode", "edge-6-prompt"),
    ]
    assert cases["padded-left"].refused is not None
    for name, case in cases.items():
        if name != "padded-left":
            assert case.figures is not None
            assert case.figures.max_difference < 1e-4
            assert case.figures.top1 == 1
    assert [(c.tokens, c.agreed) for c in report.continuations] == [(8, 8), (8, 8)]
    assert len(report.kl_by_position) == 2
    assert {len(window) for window in report.kl_by_position} == {48}
    assert len(report.worst_tokens) == 12
    assert report.not_compared == ()


def test_the_report_is_json_and_names_its_command(report: Report, pair: Pair) -> None:
    fields = json.loads(report.to_json())
    assert fields["verdict"] == "faithful"
    assert fields["command"] == (
        f"intaglio parity {pair.artifact} --source {pair.checkpoint} --windows 2 --window 48 --steps 8"
    )


@pytest.mark.parametrize("family", ["qwen2", "exaone4"])
@pytest.mark.parametrize(
    "task", ["text-generation", "text-classification", "token-classification", "question-answering"]
)
@torch.inference_mode()
def test_the_source_is_the_native_definition(shelf: Shelf, family: str, task: str) -> None:
    checkpoint = Checkpoint(shelf.checkpoint(Base(family, task)))
    source, module = SourceModel(checkpoint, task), checkpoint.load()  # type: ignore[arg-type]
    tokens = np.random.default_rng(0).integers(3, 250, 30)
    passage = Passage(tokens, (20, 1, 9))
    source.read([passage, Passage(tokens[:7], (7,))])
    output = module(torch.from_numpy(tokens)[None])
    if task == "question-answering":
        wanted = torch.cat([output.start_logits, output.end_logits])
    else:
        wanted = output.logits[0] if output.logits.ndim == 3 else output.logits
    np.testing.assert_allclose(source.outputs(passage, 0, 30), wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_a_verdict_is_put_into_the_artifact(shelf: Shelf, report: Report, tmp_path: Path) -> None:
    copy = shelf.copy(Base("exaone4"), tmp_path / "out")
    record(copy.artifact, report)
    manifest = read_manifest(copy.artifact)
    assert manifest.parity.verdict == "faithful"
    assert {"parity.json", "parity.html"} <= set(manifest.files)
    assert verify(copy.artifact) == []
    load(copy.artifact)
    record(copy.artifact, report)  # again, over itself
    assert verify(copy.artifact) == []


def test_what_is_broken_does_not_load(shelf: Shelf, tmp_path: Path) -> None:
    copy = shelf.copy(Base("exaone4"), tmp_path / "out")
    manifest = json.loads((copy.artifact / MANIFEST).read_text())
    manifest["parity"]["verdict"] = "broken"
    (copy.artifact / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError) as caught:
        load(copy.artifact)
    assert str(caught.value) == (
        f"{copy.artifact} is not the model that it was made from: its parity report says broken; "
        f"read {copy.artifact / 'parity.html'}, and export the model again"
    )


def test_long_windows_are_left_out_and_named(pair: Pair) -> None:
    options = CheckOptions(windows=1, window=12, steps=4, longest=12)
    found = check(pair.artifact, pair.checkpoint, options=options, threads=1)
    assert found.not_compared == ("sliding window of 6: 18 tokens are more than --max-length of 12",)


def test_a_source_of_another_shape(pair: Pair, shelf: Shelf) -> None:
    other = shelf.checkpoint(Base("exaone4", changes={"hidden_size": 32, "head_dim": 16}))
    with pytest.raises(UsageError) as caught:
        check(pair.artifact, other)
    assert str(caught.value) == (
        f"{other} is another model than {pair.artifact} was made from: its hidden_size is 32, the artifact's 64; "
        f"give the checkpoint of {pair.checkpoint.name} as --source"
    )


def test_a_source_of_other_weights(pair: Pair, shelf: Shelf) -> None:
    other = shelf.checkpoint(Base("exaone4", seed=1))
    with pytest.raises(UsageError) as caught:
        check(pair.artifact, other)
    digest = read_manifest(pair.artifact).source.digest[:12]
    assert str(caught.value).startswith(f"{other} has the digest ")
    assert str(caught.value).endswith(
        f"…, and the artifact was made from {pair.checkpoint.name} with {digest}…: its config or its weights are "
        "others; give the same checkpoint as --source"
    )


def test_a_source_that_is_an_artifact(pair: Pair) -> None:
    with pytest.raises(UsageError) as caught:
        check(pair.artifact, pair.artifact)
    assert str(caught.value) == (
        f"{pair.artifact} is an artifact; give the checkpoint that it was made from as --source"
    )


def test_more_memory_than_there_is(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "available_memory", lambda: 1000)
    with pytest.raises(UsageError) as caught:
        check(pair.artifact, pair.checkpoint)
    assert str(caught.value) == (
        f"{pair.artifact}: running it takes about 0.0 GB of memory, and 0.0 GB are free; check it on a larger machine"
    )


def test_no_source(pair: Pair) -> None:
    with pytest.raises(UsageError) as caught:
        check(pair.artifact)
    assert str(caught.value) == (
        f"{pair.artifact} was made from the folder {pair.checkpoint.name!r}, and a manifest does not say where that "
        "is; give it as --source"
    )


def test_a_damaged_artifact(shelf: Shelf, tmp_path: Path) -> None:
    copy = shelf.copy(Base("exaone4"), tmp_path / "out")
    data = bytearray(data_of(copy.artifact).read_bytes())
    data[100] ^= 1
    data_of(copy.artifact).write_bytes(data)
    with pytest.raises(ArtifactError) as caught:
        check(copy.artifact, copy.checkpoint)
    assert str(caught.value) == (
        f"{copy.artifact} is damaged: onnx/model.onnx_data: its SHA-256 differs from the manifest's; "
        "copy it again, or export the model again"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "{path}: No such file or directory; give a text file as --text"),
        (b"\xff\xfe\x00", "{path} is not text in UTF-8 (byte 0); convert it, or give another"),
        (b"", "{path} is empty: it has no tokens; give a text as --text"),
        (b"a b", "{path} has 3 tokens, and one window has 48; give a longer text, or a smaller --window"),
    ],
)
def test_text_that_cannot_be_used(pair: Pair, tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        check(pair.artifact, pair.checkpoint, options=CheckOptions(text=path, window=48))
    assert str(caught.value) == message.format(path=path)


def test_text_without_a_tokenizer(tmp_path: Path) -> None:
    from intaglio.exporter import export

    source = tiny.write(tmp_path / "source", tiny.config("qwen2"))
    export(source, tmp_path / "out")
    text = tmp_path / "text.txt"
    text.write_text("some text")
    with pytest.raises(UsageError) as caught:
        check(tmp_path / "out", source, options=CheckOptions(text=text))
    assert str(caught.value) == (
        f"{text} is text, and the artifact has no tokenizer.json to read it with; leave out --text"
    )
    report = check(tmp_path / "out", source, options=QUICK, threads=1)
    assert report.verdict == "faithful"
    assert report.text == "random tokens, because there is no tokenizer: 2 windows of 48 tokens"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": 0}, "windows must be at least 1, not 0"),
        ({"window": 4}, "window must be at least 8, not 4"),
        ({"reference": "llama"}, "reference is 'llama'; the only one is 'transformers'"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        CheckOptions(**options)  # type: ignore[arg-type]
    assert str(caught.value) == message
