"""An artifact of format version 2, whose graph is ``model.onnx`` beside the manifest, is used as one of version 3."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from intaglio.artifact import read_manifest, verify
from intaglio.cli.main import cli
from intaglio.exporter import QuantizeOptions, export, quantize
from intaglio.parity import check
from intaglio.runtime import TextGenerator, load
from intaglio.tests import tiny
from intaglio.tests.files.artifact_files import contents, rearrange_as_format_2
from intaglio.tests.parity.artifacts import QUICK
from intaglio.tests.runtime.fakes import hub_snapshot

PROMPTS = [[5, 6, 7, 5, 6, 7, 5], [9] * 30, [20, 30, 40, 50, 60, 2, 1]]
RTN = QuantizeOptions("rtn")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("format-2") / "checkpoint", tiny.config("exaone4"), tokenizer=True)


def both_formats(source: Path, folder: Path, **options: Any) -> tuple[Path, Path]:
    """Return an artifact in the current format, and the same in format 2."""
    new, old = folder / "new", folder / "old"
    export(source, new, **options)
    shutil.copytree(new, old)
    rearrange_as_format_2(old)
    return new, old


def results(model: TextGenerator) -> object:
    """Return the tokens of every kind of call: one prompt, speculation, a batch, beams; and the scores of texts."""
    alone = model.generate(PROMPTS[0], max_new_tokens=12, speculate=False)
    speculate = model.manifest.target == "ort" or None
    speculating = model.generate(PROMPTS[0] * 3, max_new_tokens=24, speculate=speculate)
    beams = model.generate(PROMPTS[2], max_new_tokens=6, num_beams=2)
    batch = model.generate(PROMPTS, max_new_tokens=8)
    scores = model.score(PROMPTS)
    return [one.token_ids for one in (alone, speculating, beams, *batch)], [one.logprobs for one in scores]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"precision": "int4", "options": RTN}, id="int4"),
        pytest.param({"target": "standard"}, id="standard", marks=pytest.mark.slow),
    ],
)
def test_it_generates_and_scores_as_one_of_format_3(source: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    new, old = both_formats(source, tmp_path, **options)
    expected = results(load(new, task="text-generation"))
    assert results(load(old, task="text-generation")) == expected
    (tmp_path / "hub").mkdir()
    assert results(load(hub_snapshot(old, tmp_path / "hub"), task="text-generation")) == expected


def test_it_is_verified_inspected_checked_and_quantized(source: Path, tmp_path: Path) -> None:
    new, old = both_formats(source, tmp_path)
    assert {"model.onnx", "model.onnx.data"} <= read_manifest(old).files.keys()
    assert verify(old) == []
    shown = [json.loads(CliRunner().invoke(cli, ["inspect", str(folder), "--json"]).stdout) for folder in (new, old)]
    assert shown[0]["operators"] == shown[1]["operators"]
    assert check(old, source, options=QUICK, threads=1).verdict == "faithful"
    for folder in (new, old):
        quantize(folder, tmp_path / f"{folder.name}-int4", options=RTN)
    assert contents(tmp_path / "old-int4") == contents(tmp_path / "new-int4")
